"""Forecasting models as StableHLO: one program for every batch size and width, on JAX."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ragged.backend import load_backend
from ragged.export.program import Exported, Input, check_format, damaged, inputs_of, missing_extra
from ragged.io.atomic import write_file
from ragged.lengths import Lengths
from ragged.models.quantiles import sort_quantiles
from ragged_jax.arrays import name

export_formats = ("stablehlo",)
PLATFORMS = ("cpu", "cuda")  # one file runs on both
DIGEST = hashlib.sha256().digest_size


def export_model(
    module: nnx.Module, path: Path, *, format: str, quantiles: tuple[float, ...] = ()
) -> None:
    """Write a forecasting model as `jax.export` serialises it; its parameters are in the file.

    If its outputs are `quantiles`, the program sorts those of each target.

    The lengths are inputs of the program. An exported layer needs nothing but XLA. The digest at
    the file's end is ignored by `jax.export.deserialize`, which reads the file too.

    Raises:
        OptionError: another format than "stablehlo".
        MissingExtraError: flatbuffers is not installed.
    """
    check_format(load_backend(name), format)
    export = _exporter(path)
    model = nnx.merge(*nnx.split(module))
    model.eval()

    def forecast(past: Array, future: Array, **inputs: Any) -> Array:
        for side, array in (("encoder_lengths", past), ("decoder_lengths", future)):
            inputs[side] = Lengths.unchecked(inputs[side], array.shape[1])
        output = model(past, future, **inputs).output
        return sort_quantiles(jnp, output, quantiles) if quantiles else output

    weight = jax.tree.leaves(nnx.state(module, nnx.Param))[0]
    inputs = inputs_of(module.config, str(weight.dtype))
    scope = export.SymbolicScope()
    arguments = {}
    for argument, (axes, dtype) in inputs.items():
        shape = export.symbolic_shape(", ".join(map(str, axes)) + ",", scope=scope)
        arguments[argument] = jax.ShapeDtypeStruct(shape, dtype)
    program = export.export(jax.jit(forecast), platforms=PLATFORMS)(**arguments)
    content = bytes(program.serialize())
    write_file(Path(path), content + hashlib.sha256(content).digest())


def load_exported(path: Path, *, format: str) -> Exported:
    """Read a program, to be called with NumPy arrays; JAX compiles it for each shape it meets.

    The file holds no Python. The digest at its end refuses a damaged file before XLA's reader,
    which damaged bytes can crash; it does not authenticate the file.

    Raises:
        OptionError, MissingExtraError: as `export_model`.
        ArtefactError: the file holds no such program.
    """
    check_format(load_backend(name), format)
    export = _exporter(Path(path))
    try:
        program = export.deserialize(bytearray(_without_digest(Path(path).read_bytes())))
        _, arguments = jax.tree.unflatten(program.in_tree, program.in_avals)
        inputs = {n: _input(aval) for n, aval in arguments.items()}
        program.mlir_module()  # else only a call would read it
    except OSError:
        raise
    except Exception as error:  # the readers' errors share no type
        raise damaged(Path(path), error) from error
    call = jax.jit(program.call)

    def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
        return np.asarray(call(**arrays))

    return Exported(run, inputs)


def _without_digest(content: bytes) -> bytes:
    """Return a file's program without the digest; a ValueError if the digest does not match."""
    program, digest = content[:-DIGEST], content[-DIGEST:]
    if hashlib.sha256(program).digest() != digest:
        raise ValueError("its digest is that of other bytes")
    return program


def _input(aval: Any) -> Input:
    shape = tuple(size if isinstance(size, int) else str(size) for size in aval.shape)
    return Input(shape, str(aval.dtype))


def _exporter(path: Path) -> Any:
    """Import `jax.export`, which serialises with flatbuffers."""
    try:
        import flatbuffers  # noqa: F401
        from jax import export
    except ImportError as error:
        raise missing_extra(Path(path), "flatbuffers") from error
    return export
