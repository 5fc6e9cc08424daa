"""JAX's programs for a GPU, compiled by XLA without one, for the H100 that `h100.txtpb` describes.

    python -m tests.cuda.jax_programs [MODEL ...]

prints what a training step of each model became; nothing is run. `make .venv/xla_cuda` brings the
compiler, 130 MB, to a folder of its own: where it is installed JAX looks for CUDA in every process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

COMPILER = Path(sys.prefix) / "xla_cuda"
H100 = Path(__file__).with_name("h100.txtpb")
CUDNN = "a layer by cuDNN"
KERNEL = re.compile(r" (?:fusion|custom-call|copy)\(")
# To choose among implementations of a product XLA would have to measure them. What LLVM makes of a
# kernel is not looked at.
OPTIONS = {
    "xla_gpu_autotune_level": 0,
    "xla_gpu_enable_triton_gemm": False,
    "xla_backend_optimization_level": 0,
}
SIZES: dict[str, dict[str, Any]] = {
    "EncoderDecoderLSTM": {},
    "AttentionLSTM": {"num_heads": 2},
    "TransformerLSTM": {"num_heads": 2, "num_blocks": 1},
    "TemporalFusionTransformer": {"num_heads": 2, "context_length": 24, "output_size": 7},
    "PFTemporalFusionTransformer": {"num_heads": 2, "reference_length": 24, "output_size": 7},
    "XTFT": {"num_heads": 2, "output_size": 7},
}


class Program(NamedTuple):
    """What XLA made for the GPU.

    Args:
        kernels: how many are launched outside of loops.
        loops: how many are launched in a step of each loop.
        calls: the names of what is called and not compiled.
    """

    kernels: int
    loops: list[int]
    calls: list[str]


def reason_against() -> str | None:
    """Say why nothing can be compiled for a GPU here; None = it can."""
    return (
        None if COMPILER.is_dir() else "XLA's compiler for CUDA is not here (make .venv/xla_cuda)"
    )


def compile_steps(models: Sequence[str]) -> dict[str, Program]:
    """Compile the models' training steps, gradient and update, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cuda.jax_programs", *models],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = map(json.loads, done.stdout.splitlines())
    return {each.pop("step"): Program(**each) for each in made}


def batch_of(model: Any) -> Any:
    """Make a host batch for a model."""
    import numpy as np

    from ragged.data import Sample, Series, collate

    event = Series("0", np.arange(2.0), {})
    rows = [
        Sample(np.ones((past, 2)), np.ones((future, 1)), np.ones((future, 1)), event, 1)
        for past, future in ((24, 10), (5, 8), (1, 0))
    ]
    return collate(rows, batch_size=4, encoder_alignment=model.config.encoder_alignment)


def step_of(model: str) -> tuple[Any, tuple[Any, ...], tuple[Any, ...]]:
    """Build a training step, and the arguments of its two programs: gradient and update."""
    import jax
    import jax.numpy as jnp

    import ragged
    from ragged.training.objective import Objective
    from ragged.training.optimizers import AdamW

    with ragged.use_backend("jax") as backend:
        made = getattr(ragged.models, model)(2, 1, hidden_size=16, num_layers=1, **SIZES[model])
        batch = batch_of(made)
        objective = Objective.of(None, None, made.config, 1)
        step: Any = backend.TrainingStep(made, objective, AdamW())
    arrays, room = step._arrays(batch)[0], None  # there all steps are computed
    of_gradient = step._params, arrays, room, jax.random.key(0), jnp.float32(3)
    return step, of_gradient, (*step._state, step._params, step._numbers(1e-3))


def cudnn_layer() -> tuple[Any, tuple[Any, ...]]:
    """Make a layer's both passes by cuDNN, and arrays for them.

    To know how much memory it needs cuDNN would have to find a GPU: a size is given.
    """
    import jax.numpy as jnp
    from jaxlib import gpu_rnn
    from ragged_jax.recurrent import cudnn

    gpu_rnn.compute_rnn_workspace_reserve_space_sizes = lambda *_: (64, 64)
    options: dict[str, Any] = {"mode": "LSTM", "layout": "padded", "width": 5}
    options |= {"reverse": True, "start": "zeros"}

    def run(lengths: Any, *inputs: Any) -> Any:
        fixed = lengths, jnp.zeros((3, 0), bool)
        y, h, c, kept = cudnn.run_direction(*fixed, *inputs, keep=True, **options)
        return cudnn.vjp_direction(*fixed, *inputs, y, kept, y, h, c, wants_x=True, **options)

    shapes = (3, 5, 2), (3, 4), (3, 4), (16, 2), (16, 4), (16,), (16,)
    return run, (jnp.ones(3, jnp.int32), *map(jnp.ones, shapes))


def compile_for_gpu(function: Any, *arguments: Any) -> Program:
    """Compile a function of arrays of these shapes and dtypes for one H100."""
    import jax
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    jax.devices()  # finds the compiler
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="h100", target_config=H100.read_text(), topology="1x1x1"
    )
    sharding = SingleDeviceSharding(topology.devices[0])

    def abstract(array: Any) -> Any:
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)

    lowered = jax.jit(function).lower(*jax.tree.map(abstract, arguments))
    text = lowered.compile(compiler_options=OPTIONS).as_text()
    loops = [_kernels_of(text, name) for name in re.findall(r"body=%?([\w.\-]+)", text)]
    calls = sorted(set(re.findall(r'custom_call_target="([^"]+)"', text)))
    return Program(len(KERNEL.findall(text.split("\nENTRY")[1])), loops, calls)


def _kernels_of(text: str, computation: str) -> int:
    body = re.search(rf"^%?{re.escape(computation)} \(.*?\{{\n(.*?)^\}}", text, re.M | re.S)
    assert body is not None
    return len(KERNEL.findall(body[1]))


if __name__ == "__main__":
    sys.path.append(str(COMPILER))
    os.environ |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}  # before JAX is imported
    for name in sys.argv[1:] or SIZES:
        if name == CUDNN:
            run, arrays = cudnn_layer()
            print(json.dumps({"step": name, **compile_for_gpu(run, *arrays)._asdict()}), flush=True)
            continue
        step, of_gradient, of_update = step_of(name)
        for kind, program, arguments in (
            ("gradient", step._differentiated, of_gradient),
            ("update", step._applied, of_update),
        ):
            found = compile_for_gpu(program, *arguments)._asdict()
            print(json.dumps({"step": f"{name}, {kind}", **found}), flush=True)
