"""Which implementation runs a layer: what a call is, and how a list is asked about it.

Each backend has one list. The first implementation that has no reason against a call runs it.
Eager and compiled calls, `ragged.explain` and the tests all ask it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ragged.kernels import available
from ragged.lengths import Lengths
from ragged.ops.packing import should_use_packing

NO_PADDING_COMPUTED = ("kernels", "packed")


class LayerCall(NamedTuple):
    """What the choice of an implementation depends on.

    Args:
        device: "cpu", "cuda" or another name of the framework's.
        dtype: "float32", say.
        policy: "auto", "always" or "never", what `resolve_policy` gives.
        hidden_size: of the layer.
        proj_size: of its projection; 0 = none.
        rows: of the batch.
        width: of the batch.
        tokens: valid steps; None = not known yet.
        compiler: whether there is a C++ compiler that may be used.
        surrounding: what the framework does around the call, said so that it can be a reason; None
            = nothing.
        mode: of the layer's cell, a key of `ragged.recurrent.cells.CELLS`.
        layout: how its tokens lie, "padded" or another that the backend has.
    """

    device: str
    dtype: str
    policy: str = "auto"
    hidden_size: int = 1
    proj_size: int = 0
    rows: int = 1
    width: int = 1
    tokens: int | None = None
    compiler: bool = True
    surrounding: str | None = None
    mode: str = "LSTM"
    layout: str = "padded"

    @property
    def padding(self) -> float:
        """The share of the padded batch that is padding; 0 where it is not known."""
        size = self.rows * self.width
        return 1 - self.tokens / size if size and self.tokens is not None else 0.0


class Implementation(NamedTuple):
    """One way to run a layer.

    Args:
        name: as `ragged.explain` prints it.
        unsupported_reason: why it does not run a call; None = it can.
        run: what runs it, of a form that the backend's list shares.
    """

    name: str
    unsupported_reason: Callable[[LayerCall], str | None]
    run: Any


def choose(implementations: Sequence[Implementation], call: LayerCall) -> Implementation:
    """Give the first implementation that has no reason against a call; the last one never has.

    >>> gpu = Implementation("gpu", lambda call: None if call.device == "cuda" else "no GPU", None)
    >>> choose([gpu, Implementation("any", lambda call: None, None)], LayerCall("cpu", "f")).name
    'any'
    """
    for implementation in implementations:
        if implementation.unsupported_reason(call) is None:
            return implementation
    raise AssertionError(f"no implementation runs {call}")


def reasons(implementations: Sequence[Implementation], call: LayerCall) -> dict[str, str | None]:
    """Give the reason of each implementation by its name, in order."""
    return {each.name: each.unsupported_reason(call) for each in implementations}


def resolve_policy(lengths: Lengths) -> str:
    """Give a policy without "rule", which these lengths decide."""
    if lengths.policy == "rule":
        return "always" if should_use_packing(lengths) else "never"
    return lengths.policy


def describe_batch(lengths: Lengths, **known: Any) -> LayerCall:
    """Describe a call on lengths that have values."""
    return LayerCall(
        policy=resolve_policy(lengths),
        rows=len(lengths),
        width=lengths.width,
        tokens=lengths.tokens,
        compiler=available(),
        **known,
    )


def policy_reason(call: LayerCall, takes: Sequence[str]) -> str | None:
    """Say that the policy asks for something else than an implementation does."""
    if call.policy in takes:
        return None
    return f"the policy asks for {'packing' if call.policy == 'always' else 'padding'}"


def no_reason(call: LayerCall) -> None:
    """Run any call, as plain operations do: the last implementation of a list has this."""


def kernels_reason(call: LayerCall, has_kernels: Callable[[str, str], bool]) -> str | None:
    """Say why kernels of our own do not run a call, on any backend.

    Args:
        call: the call.
        has_kernels: whether those of a mode and a dtype could be loaded.
    """
    if call.device != "cpu":
        return "they run on a CPU alone"
    if call.proj_size:
        return "they have no projection"
    if (reason := policy_reason(call, ("auto",))) is not None:
        return reason
    if not call.compiler:
        return "no C++ compiler was found, or RAGGED_KERNELS=0"
    return (
        None if has_kernels(call.mode, call.dtype) else "they could not be compiled, kept or loaded"
    )


def computed_steps(implementation: str, lengths: Lengths) -> int:
    """How many steps of rows an implementation computes, padding included.

    >>> computed_steps("kernels", Lengths([3, 5])), computed_steps("padded", Lengths([3, 5]))
    (8, 10)
    """
    exact = implementation in NO_PADDING_COMPUTED
    return lengths.tokens if exact else len(lengths) * lengths.width
