"""Every cell and layout beside its peer, resets beside loops, and small calls.

python -m benchmarks.layers
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.cases import CASES, Case, lengths_of
from benchmarks.report import table
from benchmarks.timing import Timing, interleave

RESULTS = Path(__file__).parent / "results"
CELLS = ("LSTM", "GRU", "RNN")
SIZES = tuple(case for case in CASES if case.hidden < 256 and not case.bidirectional)
EPISODES = (32, 256, 16, 64)  # environments, steps, features, hidden; an episode has some 20 steps


def main() -> None:
    """Measure everything and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=1.5, help="seconds of a point")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    about = machine.describe("cpu")
    parts: dict[str, list[dict[str, Any]]] = {
        "cells": [cell(name, case, chosen.budget) for name in CELLS for case in SIZES],
        "episodes": [episodes(name, chosen.budget) for name in CELLS],
        "threads": [threads(name, case, chosen.budget) for name in CELLS for case in SIZES],
        "small calls": [small(name) for name in CELLS],
    }
    text = [f"# Cells, layouts, resets\n\n{', '.join(f'{k} {v}' for k, v in about.items())}."]
    for title, rows in parts.items():
        heads = list(dict.fromkeys(head for row in rows for head in row))
        text.append(f"## {title.capitalize()}\n\n{NOTES[title]}\n")
        text.append(table(heads, [[_shown(row.get(head, "-")) for head in heads] for row in rows]))
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "layers_cpu.json").write_text(json.dumps({"machine": about, **parts}, indent=1))
    (chosen.out / "layers_cpu.md").write_text("\n\n".join(text) + "\n")
    print("\n\n".join(text))


NOTES = {
    "cells": "Forward and backward, log-normal lengths, ms: ours padded with lengths, packed and "
    "jagged in and out, on JAX; torch's packed, and padded over the padding too; flax's cell.",
    "episodes": "Forward and backward over {} environments, {} steps, {} features, hidden {}, "
    "where one step in 20 starts an episode, ms: one call with resets, a loop over steps that "
    "masks the state, and on JAX flax's cell in a scan that does.".format(*EPISODES),
    "threads": "Forward and backward on torch, log-normal lengths, ms, by one thread and by two.",
    "small calls": "Forward without gradients of one step of one row, hidden 1 and 64, us.",
}


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _milliseconds(timings: dict[str, Timing]) -> dict[str, Any]:
    return {
        name: f"{1e3 * t.median:.3g} [{1e3 * t.low:.3g}, {1e3 * t.high:.3g}]"
        for name, t in timings.items()
    }


def _torch_step(run: Callable[[], Any], leaves: list[Any]) -> Callable[[], None]:
    """Run a layer and go back through it; `run` gives what is summed."""
    import torch

    def step() -> None:
        torch.autograd.grad(run().sum(), leaves)

    return step


def cell(name: str, case: Case, budget: float) -> dict[str, Any]:
    """Time a cell's forms of input beside its peers'."""
    import ragged_torch
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence

    lengths = lengths_of(case, "log-normal")
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(case.inputs, case.hidden, case.layers, batch_first=True)
    ours = getattr(ragged_torch, name)(case.inputs, case.hidden, case.layers, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(case.batch, case.width, case.inputs, requires_grad=True)
    packed = pack_padded_sequence(x, torch.tensor(lengths), True, enforce_sorted=False)
    rows = torch.cat([x[row, :length] for row, length in enumerate(lengths)]).detach()
    offsets = torch.tensor(np.append(0, np.cumsum(lengths)))
    values = rows.requires_grad_()
    leaves, peers = [x, *ours.parameters()], [x, *theirs.parameters()]
    data = packed._replace(data=packed.data.detach().requires_grad_())
    runs = {
        "ours": _torch_step(lambda: ours(x, lengths=lengths)[0], leaves),
        "ours, packed": _torch_step(lambda: ours(data)[0].data, [data.data, *leaves[1:]]),
        "ours, jagged": _torch_step(
            lambda: ours(values, offsets=offsets)[0], [values, *leaves[1:]]
        ),
        "torch, packed": _torch_step(lambda: theirs(data)[0].data, [data.data, *peers[1:]]),
        "torch, padded": _torch_step(lambda: theirs(x)[0], peers),
        **jax_runs(name, case, lengths),
    }
    found = interleave(runs, budget=budget)
    ours_time = found["ours"].median
    return {
        "cell": name,
        "batch, width, in, hidden, layers": case.name,
        **_milliseconds(found),
        "torch packed / ours packed": found["torch, packed"].median / found["ours, packed"].median,
        "torch padded / ours": found["torch, padded"].median / ours_time,
        "jagged / padded": found["ours, jagged"].median / ours_time,
        "flax / JAX": found["flax"].median / found["JAX"].median,
        "JAX / ours": found["JAX"].median / ours_time,
    }


FLAX = {"LSTM": "OptimizedLSTMCell", "GRU": "GRUCell", "RNN": "SimpleCell"}


def jax_runs(name: str, case: Case, lengths: np.ndarray) -> dict[str, Callable[[], None]]:
    """Ours on JAX, and flax's cell."""
    import jax.numpy as jnp
    from flax import nnx

    import ragged

    with ragged.use_backend("jax"):
        layer = getattr(ragged, name)(case.inputs, case.hidden, case.layers, seed=0)
    sizes = [case.inputs, *[case.hidden] * (case.layers - 1)]
    kind, rngs = getattr(nnx, FLAX[name]), nnx.Rngs(0)
    stack = nnx.List([nnx.RNN(kind(size, case.hidden, rngs=rngs)) for size in sizes])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(case.batch, case.width, case.inputs)))
    valid, counts = ragged.Lengths(lengths, case.width), jnp.asarray(lengths)

    def of_flax(stack: Any, x: Any) -> Any:
        for each in stack:
            x = each(x, seq_lengths=counts, rngs=nnx.Rngs(0))
        return x.sum()

    return {
        "JAX": _jax_step(layer, lambda layer, x: layer(x, valid)[0].sum(), x),
        "flax": _jax_step(stack, of_flax, x),
    }


def _jax_step(module: Any, total: Callable[..., Any], x: Any) -> Callable[[], None]:
    """Run what sums up a module's outputs and go back through it, without `nnx.jit`'s own time."""
    import jax
    import ragged_jax
    from flax import nnx

    graph, parameters, rest = nnx.split(module, nnx.Param, ...)

    @ragged_jax.jit
    def gradients(parameters: Any, x: Any) -> Any:
        def of_parameters(parameters: Any, x: Any) -> Any:
            return total(nnx.merge(graph, parameters, rest), x)

        return jax.grad(of_parameters, argnums=(0, 1))(parameters, x)

    return lambda: jax.block_until_ready(gradients(parameters, x))


def episodes(name: str, budget: float) -> dict[str, Any]:
    """Time resets inside rows beside loops that mask the state."""
    import ragged_torch
    import torch

    batch, steps, inputs, hidden = EPISODES
    torch.manual_seed(0)
    ours, theirs = (getattr(m, name)(inputs, hidden) for m in (ragged_torch, torch.nn))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(steps, batch, inputs, requires_grad=True)
    starts = torch.rand(steps, batch) < 0.05

    def loop() -> Any:
        state, outputs = torch.zeros(1, batch, hidden), []
        hx = (state, state) if name == "LSTM" else state
        for step, start in zip(x, starts, strict=True):
            alive = ~start[None, :, None]
            hx = tuple(each * alive for each in hx) if name == "LSTM" else hx * alive
            y, hx = theirs(step[None], hx)
            outputs.append(y)
        return torch.cat(outputs)

    runs = {
        "ours": _torch_step(lambda: ours(x, resets=starts)[0], [x, *ours.parameters()]),
        "loop": _torch_step(loop, [x, *theirs.parameters()]),
        **jax_episodes(name, starts.numpy()),
    }
    found = interleave(runs, budget=budget, rivals={"loop": "ours", "scan": "JAX"})
    return {
        "cell": name,
        **_milliseconds(found),
        "loop / ours": found["loop"].median / found["ours"].median,
        "scan / JAX": found["scan"].median / found["JAX"].median,
    }


def jax_episodes(name: str, starts: np.ndarray) -> dict[str, Callable[[], None]]:
    """Ours on JAX, and flax's cell in a scan that clears the state."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    import ragged

    batch, steps, inputs, hidden = EPISODES
    with ragged.use_backend("jax"):
        layer = getattr(ragged, name)(inputs, hidden, seed=0)
    cell = getattr(nnx, FLAX[name])(inputs, hidden, rngs=nnx.Rngs(0))
    x, resets = jnp.ones((batch, steps, inputs)), jnp.asarray(starts.T)

    def scan(cell: Any, x: Any) -> Any:
        carry = cell.initialize_carry((batch, inputs), nnx.Rngs(0))

        def step(carry: Any, given: Any) -> Any:
            x, start = given
            carry = jax.tree.map(lambda each: jnp.where(start[:, None], 0, each), carry)
            return cell(carry, x)

        return jax.lax.scan(step, carry, (x.swapaxes(0, 1), resets.T))[1].sum()

    return {
        "JAX": _jax_step(layer, lambda layer, x: layer(x, resets=resets)[0].sum(), x),
        "scan": _jax_step(cell, scan, x),
    }


def threads(name: str, case: Case, budget: float) -> dict[str, Any]:
    """Time a layer with one thread and with two."""
    import ragged_torch
    import torch

    lengths = lengths_of(case, "log-normal")
    layer = getattr(ragged_torch, name)(case.inputs, case.hidden, case.layers, batch_first=True)
    x = torch.randn(case.batch, case.width, case.inputs, requires_grad=True)
    step = _torch_step(lambda: layer(x, lengths=lengths)[0], [x, *layer.parameters()])
    before = torch.get_num_threads()

    def with_threads(count: int) -> None:
        torch.set_num_threads(count)
        step()

    runs = {"one": lambda: with_threads(1), "two": lambda: with_threads(2)}
    try:
        found = interleave(runs, budget=budget)
    finally:
        torch.set_num_threads(before)
    gain = found["one"].median / found["two"].median
    size = {"cell": name, "batch, width, in, hidden, layers": case.name}
    return {**size, **_milliseconds(found), "one / two": gain}


def small(name: str) -> dict[str, Any]:
    """Time one step of one row."""
    import ragged_torch
    import torch

    found: dict[str, Any] = {"cell": name}
    for hidden in (1, 64):
        ours, theirs = (getattr(m, name)(1, hidden) for m in (ragged_torch, torch.nn))
        x, state = torch.zeros(1, 1, 1), torch.zeros(1, 1, hidden)
        hx = (state, state) if name == "LSTM" else state

        def calls(layer: Any, x: Any = x, hx: Any = hx) -> Callable[[], None]:
            def run() -> None:
                with torch.no_grad():
                    for _ in range(200):
                        layer(x, hx)

            return run

        times = interleave({"ours": calls(ours), "torch": calls(theirs)}, budget=1.0, least=7)
        for who, timing in times.items():
            found[f"{who}, hidden {hidden}"] = 1e6 * timing.median / 200
        found[f"ours / torch, hidden {hidden}"] = times["ours"].median / times["torch"].median
    return found


if __name__ == "__main__":
    main()
