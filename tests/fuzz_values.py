"""What the fuzz gives in place of arguments: junk, and values in all their forms."""

from __future__ import annotations

import array
import datetime
import decimal
import fractions
import io
from pathlib import Path

import numpy as np

import ragged

BATCH, WIDTH, FEATURES, HIDDEN = 3, 4, 2, 3
SWITCHES = ("auto", "rule", "always", "never")
rng = np.random.default_rng(0)


class Raising:
    """What raises whatever is done with it."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no array")

    def __len__(self):
        raise RuntimeError("no length")

    def __bool__(self):
        raise RuntimeError("no truth")

    def __repr__(self):
        raise RuntimeError("no text")


class Frame:
    """A table as pandas has them: columns, and an array of objects."""

    columns = ("a", "b")
    shape = (BATCH, 2)

    def __array__(self, dtype=None, copy=None):
        return np.array([["a", 1.0]] * BATCH, object)

    def __getitem__(self, name):
        raise KeyError(name)


class Shaped:
    """What has an array's attributes and nothing else."""

    shape, dtype, ndim, data = (BATCH, WIDTH, FEATURES), "float32", 3, None


def recursive():
    made = []
    made.append(made)
    return made


JUNK = {
    "str": lambda: "left handed",
    "number in a str": lambda: "3",
    "empty str": lambda: "",
    "NUL": lambda: "a\0b",
    "relative name": lambda: "..a",
    "bytes": lambda: b"abc",
    "bytearray": lambda: bytearray(b"abc"),
    "None": lambda: None,
    "dict": lambda: {"a": 1},
    "empty dict": dict,
    "set": lambda: {1, 2, 3},
    "empty list": list,
    "empty tuple": tuple,
    "nested list": lambda: [[[[[1.0]]]]],
    "recursive list": recursive,
    "ragged list": lambda: [[1.0], [1.0, 2.0]],
    "list of str": lambda: ["a", "b", "c"],
    "list of None": lambda: [None] * BATCH,
    "huge integers": lambda: [2**70] * BATCH,
    "huge list": lambda: [10**400, 1, 1],
    "object": object,
    "type": lambda: int,
    "function": lambda: print,
    "generator": lambda: (i for i in range(BATCH)),
    "Ellipsis": lambda: ...,
    "complex": lambda: 1 + 2j,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "float": lambda: 2.5,
    "-1": lambda: -1,
    "0": lambda: 0,
    "2": lambda: 2,
    "2**31": lambda: 2**31,
    "10**18": lambda: 10**18,
    "10**5000": lambda: 10**5000,
    "-10**30": lambda: -(10**30),
    "True": lambda: True,
    "bool_": lambda: np.bool_(True),
    "uint8": lambda: np.uint8(3),
    "float16": lambda: np.float16(0.5),
    "datetime64": lambda: np.zeros(BATCH, "datetime64[s]"),
    "timedelta64": lambda: np.zeros(BATCH, "timedelta64[s]"),
    "structured": lambda: np.zeros(BATCH, [("int", "<i4")]),
    "objects": lambda: np.array([1.0, None, "a"], object),
    "characters": lambda: np.array(["1", "2", "3"]),
    "void": lambda: np.zeros(BATCH, "V4"),
    "empty": lambda: np.zeros((0, 0, 0)),
    "no axes": lambda: np.array(3),
    "no axes, float": lambda: np.array(3.0),
    "seven axes": lambda: np.zeros((1,) * 7),
    "masked": lambda: np.ma.masked_array([1, 2, 3], [0, 1, 0]),
    "matrix": lambda: np.ones((2, 2)).view(np.matrix),
    "array.array": lambda: array.array("d", [1, 2, 3]),
    "range": lambda: range(1, 4),
    "date": lambda: datetime.date(2020, 1, 1),
    "Decimal": lambda: decimal.Decimal(1),
    "Fraction": lambda: fractions.Fraction(1, 2),
    "Path": lambda: Path("no such folder"),
    "file": lambda: io.StringIO("a"),
    "raising": Raising,
    "frame": Frame,
    "shaped": Shaped,
    "slice": lambda: slice(2),
    "lambda": lambda: lambda *args: args,
    "Lengths": lambda: ragged.Lengths([1, 2, 3], WIDTH),
}

# The same values in another dress; `own` makes an array of the backend.
FORMS = {
    "big-endian": lambda value, own: value.astype(value.dtype.newbyteorder(">")),
    "memoryview": lambda value, own: memoryview(value),
    "longdouble": lambda value, own: value.astype(np.longdouble),
    "float64": lambda value, own: value.astype(np.float64),
    "float16": lambda value, own: value.astype(np.float16),
    "int64": lambda value, own: value.astype(np.int64),
    "uint8": lambda value, own: value.astype(np.uint8),
    "bool": lambda value, own: value.astype(bool),
    "complex": lambda value, own: value.astype(complex),
    "objects": lambda value, own: value.astype(object),
    "list": lambda value, own: value.tolist(),
    "tuple": lambda value, own: tuple(value),
    "strided": lambda value, own: np.repeat(value, 2, axis=0)[::2],
    "reversed": lambda value, own: value[::-1].copy()[::-1],
    "read-only": lambda value, own: np.frombuffer(value.tobytes(), value.dtype).reshape(
        value.shape
    ),
    "one axis more": lambda value, own: value[None],
    "one axis less": lambda value, own: value[0],
    "shorter": lambda value, own: value[:-1],
    "own float16": lambda value, own: own(value, "float16"),
    "own bfloat16": lambda value, own: own(value, "bfloat16"),
    "own float64": lambda value, own: own(value, "float64"),
    "own int32": lambda value, own: own(value, "int32"),
    "own uint8": lambda value, own: own(value, "uint8"),
    "own bool": lambda value, own: own(value, "bool"),
    "own complex64": lambda value, own: own(value, "complex64"),
}


def torch_values():
    """What torch makes of an array, and has of its own."""
    import torch

    ragged.set_backend("torch")

    def own(value, dtype):
        return torch.tensor(np.ascontiguousarray(value)).to(getattr(torch, dtype))

    class Own(torch.Tensor):
        """A subclass without behaviour of its own."""

    forms = {
        "meta": lambda value, own: own(value, "float32").to("meta"),
        "sparse": lambda value, own: own(value, "float32").to_sparse(),
        "CSR": lambda value, own: own(value.reshape(len(value), -1), "float32").to_sparse_csr(),
        "nested": lambda value, own: torch.nested.nested_tensor(list(own(value, "float32"))),
        "jagged": lambda value, own: torch.nested.nested_tensor(
            list(own(value, "float32")), layout=torch.jagged
        ),
        "parameter": lambda value, own: torch.nn.Parameter(own(value, "float32")),
        "float8": lambda value, own: own(value, "float32").to(torch.float8_e4m3fn),
        "subclass": lambda value, own: own(value, "float32").as_subclass(Own),
        "list of tensors": lambda value, own: list(own(value, "float32").requires_grad_()),
    }
    junk = {
        "module": lambda: torch.nn.Linear(2, 2),
        "layer": lambda: ragged.LSTM(2, 2, seed=0),
        "dtype": lambda: torch.float32,
        "device": lambda: torch.device("cpu"),
        "Generator": torch.Generator,
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(BATCH), 0.1, 0, torch.quint8),
        "meta number": lambda: torch.tensor(2, device="meta"),
    }
    return own, forms, junk


def jax_values():
    """What JAX makes of an array, and has of its own."""
    import jax
    import jax.numpy as jnp

    ragged.set_backend("jax")

    def own(value, dtype):
        return jnp.asarray(np.ascontiguousarray(value)).astype(dtype)

    junk = {
        "module": lambda: ragged.LSTM(2, 2, seed=0),
        "key": lambda: jax.random.key(0),
        "shape and dtype": lambda: jax.ShapeDtypeStruct((BATCH, WIDTH, FEATURES), "float32"),
        "device": lambda: jax.devices()[0],
    }
    forms = {
        "float8": lambda value, own: own(value, "float32").astype(jnp.float8_e4m3fn),
        "weak": lambda value, own: own(value, "float32") * jnp.full(value.shape, 1.0),
        "list of arrays": lambda value, own: list(own(value, "float32")),
    }
    return own, forms, junk


def whole(*shape):
    """Small whole numbers, which every dtype holds."""
    return rng.integers(1, 5, shape).astype(np.float32)
