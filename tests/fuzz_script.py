"""Call every public function with arguments of all kinds: `fuzz_script.py BACKEND CASES SEED FILE`.

A case replaces one or two arguments of a valid call. It has to end in a `RaggedError`, or in the
numbers that the same values give as plain float32 arrays. FILE holds the case that is running, for
who finds this process dead.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import datetime
import decimal
import fractions
import io
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

import ragged
from ragged.errors import RaggedError
from ragged.losses import MaskedLoss

BATCH, WIDTH, FEATURES, HIDDEN = 3, 4, 2, 3
SWITCHES = ("auto", "rule", "always", "never", "segments")
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


def calls(own, folder):
    """Every public function with the arguments of a valid call; arrays are NumPy's."""
    x, lengths = whole(BATCH, WIDTH, FEATURES), np.array([2, 4, 1])
    layer = ragged.LSTM(FEATURES, HIDDEN, seed=0)
    parameters = {name: own(v, "float32") for name, v in weights(layer).items()}
    state = (whole(1, BATCH, HIDDEN), whole(1, BATCH, HIDDEN))
    packed = ragged.pack_sequences(own(x, "float32"), lengths)

    def run(h, c, **arguments):
        return ragged.lstm(parameters, state=(h, c), **arguments)

    def one_weight(weight, **arguments):
        return ragged.lstm({**parameters, "weight_ih_l0": weight}, **arguments)

    def choose(name):
        with ragged.use_backend(name) as backend:
            return backend.name

    def save(model, path):
        return ragged.save(model, checked(path))

    def checked(path):  # nothing is to be written where a case happens to point
        return folder / "model" if isinstance(path, (str, Path)) and "\0" not in str(path) else path

    def explain(**arguments):
        with contextlib.redirect_stdout(io.StringIO()):
            ragged.explain(**arguments)

    rows = {"x": x, "lengths": lengths}
    sizes = {"hidden_size": 8, "input_size": 8, "device": "cpu", "policy": "auto"}
    named = {
        "Lengths": (ragged.Lengths, {"lengths": lengths, "width": WIDTH, "policy": "auto"}),
        "create_padding_mask": (
            ragged.create_padding_mask,
            {"lengths": lengths, "max_length": WIDTH, "alignment": "left"},
        ),
        "lengths_from_mask": (ragged.lengths_from_mask, {"mask": np.tri(3) > 0}),
        "align_sequences": (
            ragged.align_sequences,
            {**rows, "source": "left", "target": "right", "max_length": 5},
        ),
        "align_encoder_sequences": (ragged.align_encoder_sequences, {**rows, "max_length": 5}),
        "flip_sequences": (ragged.flip_sequences, {**rows, "alignment": "left"}),
        "should_use_packing": (ragged.should_use_packing, {"lengths": lengths}),
        "pack_sequences": (ragged.pack_sequences, rows),
        "pack_decoder_sequences": (ragged.pack_decoder_sequences, rows),
        "pack_encoder_sequences": (ragged.pack_encoder_sequences, {**rows, "alignment": "left"}),
        "unpack_to_fixed_length": (
            ragged.unpack_to_fixed_length,
            {"packed": packed, "lengths": lengths, "max_length": 5},
        ),
        "schedule": (ragged.schedule, {"lengths": lengths, **sizes}),
        "explain": (explain, {"lengths": lengths, **sizes}),
        "LSTM": (
            ragged.LSTM,
            {
                "input_size": 2, "hidden_size": 3, "num_layers": 1, "bias": True,
                "batch_first": True, "dropout": 0.0, "bidirectional": False, "proj_size": 0,
                "seed": 0,
            },
        ),
        "LSTM()": (layer, {**rows, "state": None}),
        "lstm": (ragged.lstm, {"parameters": parameters, **rows, "batch_first": True,
                               "between_layers": None}),
        "lstm, state": (run, {**rows, "h": state[0], "c": state[1]}),
        "lstm, weight": (one_weight, {**rows, "weight": weights(layer)["weight_ih_l0"]}),
        "use_backend": (choose, {"name": ragged.get_backend().name}),
        "set_backend": (ragged.set_backend, {"name": ragged.get_backend().name}),
        "save": (save, {"model": ragged.models.EncoderDecoderLSTM(2, 1, hidden_size=3, seed=0),
                        "path": str(folder / "model")}),
        "load": (ragged.load, {"path": str(folder / "model")}),
    }  # fmt: skip
    return named | dict(losses()) | dict(models())


def losses():
    """Every loss."""
    options = {"huber": {"delta": 1.0}, "mape": {"epsilon": 1e-8}, "gaussian_nll": {"full": True}}
    options["quantile"] = {"quantiles": (0.1, 0.9)}
    for name, loss in vars(ragged.losses).items():
        if isinstance(loss, MaskedLoss):
            last = () if loss.extra_axis is None else (2,)
            sides = {"prediction": whole(BATCH, WIDTH, *last), "target": whole(BATCH, WIDTH)}
            more = {"weights": whole(BATCH), "reduction": "mean", **options.get(name, {})}
            shared = {**sides, "lengths": np.array([2, 4, 1]), "alignment": "left", **more}
            yield f"losses.{name}", (loss, shared)
            mask = {"mask": np.tri(BATCH, WIDTH) > 0}
            yield (
                f"losses.{name}.total_and_count",
                (loss.total_and_count, {**sides, **mask, **options.get(name, {})}),
            )


def models():
    """Every model, made and called."""
    own = {"reference_length": 4, "context_length": 4, "num_heads": 1, "dropout": 0.0}
    sizes = {"past_features": 2, "future_features": 1, "hidden_size": 4, "seed": 0}
    inputs = {
        "past": whole(BATCH, WIDTH, 2), "future": whole(BATCH, 2, 1),
        "encoder_lengths": np.array([2, 4, 1]), "decoder_lengths": np.array([2, 0, 1]),
    }  # fmt: skip
    for name in ragged.models.__all__:
        cls = getattr(ragged.models, name)
        if not issubclass(cls, ragged.models.Model) or cls is ragged.models.Model:
            continue
        fields = {each.name: each for each in dataclasses.fields(cls)}
        made = sizes | {key: value for key, value in own.items() if key in fields}
        statics = {"static": whole(BATCH, 1)} if "static_features" in fields else {}
        more = {"static_features": 1} if statics else {}
        defaults = {
            key: each.default
            for key, each in fields.items()
            if key not in {*made, *more} and not key.startswith("hidden_c")
        }
        yield f"models.{name}", (cls, {**made, **more, **defaults})
        yield f"models.{name}()", (cls(**made, **more), {**inputs, **statics})


def weights(layer):
    return {name: np.array(v) for name, v in ragged.get_backend().get_parameters(layer).items()}


def numbers(result):
    """Every array of a result on the host, in order."""
    backend = ragged.get_backend()
    if backend.owns(result) and hasattr(result, "ndim"):
        if "float8" in str(result.dtype):
            result = backend.xp.astype(result, backend.xp.float32)
        return [np.asarray(backend.to_numpy(result), complex)]
    if isinstance(result, (tuple, list)):
        return [number for each in result for number in numbers(each)]
    return []


def plain(value):
    """The numbers that a value holds, as float32 or complex64."""
    is_own = ragged.get_backend().owns(value)
    host = numbers(value)[0] if is_own else np.asarray(value)
    if host.dtype.kind not in "biufc":
        raise TypeError(f"{host.dtype} was accepted")
    return host.astype(np.complex64 if np.iscomplex(host).any() else np.float32)


def is_meta(value):
    return "meta" in str(getattr(value, "device", ""))


def check(function, arguments, replaced, result):
    """Compare what was accepted with what plain float32 arrays, or integers, give."""
    again = dict(arguments)
    if any(is_meta(arguments[name]) for name in replaced):
        return  # shapes without values
    for name in replaced:
        if name in ("mask", "lengths", "encoder_lengths", "decoder_lengths"):
            again[name] = None if arguments[name] is None else np.asarray(arguments[name])
        else:
            again[name] = plain(arguments[name])
    for found, expected in zip(numbers(result), numbers(function(**again)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-2)


def main(backend, cases, seed, last):
    """Run the cases and print how they ended."""
    warnings.simplefilter("ignore")
    own, forms, junk = {"torch": torch_values, "jax": jax_values}[backend]()
    forms, junk = FORMS | forms, JUNK | junk
    random = np.random.default_rng(seed)
    ended = {"refused": 0, "right": 0, "valid": 0}
    failures = {}
    with tempfile.TemporaryDirectory() as folder, open(last, "w", buffering=1) as log:
        named = calls(own, Path(folder))
        names = {name.split("()")[0].split(",")[0].split(".total")[0] for name in named}
        print(*sorted(names))
        for function, arguments in named.values():
            function(**arguments)
        for case in range(cases):
            name = list(named)[random.integers(len(named))]
            function, valid = named[name]
            arguments, replaced, told = dict(valid), [], []
            for argument in random.choice(list(valid), 1 + (random.random() < 0.2)):
                value = valid[argument]
                if isinstance(value, np.ndarray) and random.random() < 0.75:
                    form = list(forms)[random.integers(len(forms))]
                    try:
                        arguments[argument] = forms[form](value, own)
                    except Exception:
                        continue  # the framework has no such array
                else:
                    form = list(junk)[random.integers(len(junk))]
                    arguments[argument] = junk[form]()
                replaced += [argument] if isinstance(value, np.ndarray) else []
                told += [f"{argument} = {form}"]
            if "lengths" in arguments and "lengths" not in replaced and random.random() < 0.5:
                policy = SWITCHES[random.integers(len(SWITCHES))]
                width = 4 if "max_length" not in arguments else None
                if width and name not in ("Lengths", "should_use_packing"):
                    arguments["lengths"] = ragged.Lengths(valid["lengths"], width, policy)
                    told += [f"policy {policy}"]
            os.environ["RAGGED_KERNELS"] = str(case % 2)
            text = f"case {case}: {name}({', '.join(told)}), RAGGED_KERNELS={case % 2}"
            log.seek(0)
            log.write(f"{text:<300}\n")
            try:
                result = function(**arguments)
                if replaced:
                    check(function, arguments, dict.fromkeys(replaced), result)
                ended["right" if told else "valid"] += 1
            except RaggedError as error:
                message = str(error)
                if not message or "object at 0x" in message or len(message) > 2000:
                    failures[text] = f"message: {message[:200]}"
                ended["refused"] += 1
            except BaseException as error:
                failures[text] = f"{type(error).__name__}: {str(error)[:200]}"
            finally:
                ragged.set_backend(backend)
    for text, error in failures.items():
        print("FAILED", text, "->", error.replace("\n", " "))
    print(f"{cases} cases on {backend}: {ended}, {len(failures)} failed")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
