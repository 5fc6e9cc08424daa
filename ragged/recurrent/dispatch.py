"""Which implementation runs a recurrent layer: what a call is, and reasons against it.

Each backend has one list of `ragged.implementations`. Eager and compiled calls, `ragged.explain`
and the tests all ask it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ragged.kernels import available
from ragged.kernels.cuda import cubins
from ragged.kernels.cuda.layer import MOST_PLACES
from ragged.kernels.cuda.plans import STORED, Gpu, has_plan
from ragged.kernels.cuda.verdicts import Question, Verdict, shape_class
from ragged.lengths import Lengths
from ragged.ops.packing import should_use_packing

CPU_KERNELS, CUDA_KERNELS = "kernels", "cuda_kernels"
OF_ANY_LAYOUT = (CPU_KERNELS, CUDA_KERNELS)
OF_RESETS = (*OF_ANY_LAYOUT, "scan")
NO_PADDING_COMPUTED = (*OF_ANY_LAYOUT, "packed")

NO_PROJECTION = "they have no projection"


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
        device_index: of the device among those of its kind.
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
    device_index: int = 0

    @property
    def padding(self) -> float:
        """The share of the padded batch that is padding; 0 where it is not known."""
        size = self.rows * self.width
        return 1 - self.tokens / size if size and self.tokens is not None else 0.0

    @property
    def places(self) -> int:
        """How many an array of its tokens has, as far as it is known; else the most."""
        if self.tokens is None or self.layout in ("padded", "time_major"):
            return self.rows * self.width
        return self.tokens


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


def kernels_reason(call: LayerCall, has_kernels: Callable[[str, str], bool]) -> str | None:
    """Say why the C++ kernels do not run a call, on any backend.

    Args:
        call: the call.
        has_kernels: whether those of a mode and a dtype could be loaded.
    """
    if call.device != "cpu":
        return "they run on a CPU alone"
    if call.proj_size:
        return NO_PROJECTION
    if (reason := policy_reason(call, ("auto",))) is not None:
        return reason
    if not call.compiler:
        return "no C++ compiler was found, or RAGGED_KERNELS=0"
    return (
        None if has_kernels(call.mode, call.dtype) else "they could not be compiled, kept or loaded"
    )


def cuda_kernels_reason(
    call: LayerCall,
    find_gpu: Callable[[LayerCall], Gpu | None],
    find_verdict: Callable[[LayerCall], Verdict | None],
    *,
    tf32: bool = False,
) -> str | None:
    """Say why the CUDA kernels do not run a call, on any backend.

    Args:
        call: the call.
        find_gpu: finds the GPU that it would run on; None = kernels cannot be launched there.
        find_verdict: finds the verdict on its kernel, by a trial if there was none; None = no trial
            can be held now.
        tf32: whether products of float32 may be computed in TF32.
    """
    if call.device != "cuda":
        return "they run on a GPU alone"
    if call.proj_size:
        return NO_PROJECTION
    if (reason := policy_reason(call, ("auto",))) is not None:
        return reason
    if call.dtype not in STORED:
        return f"they compute no {call.dtype}"
    if call.dtype == "float32" and tf32:
        return "TF32 was asked for, which they do not compute in"
    gpu = find_gpu(call) if cubins.is_available() else None
    if gpu is None:
        return "no driver and NVRTC were found for this device, or RAGGED_KERNELS=0"
    if (reason := cubins.gpu_reason(gpu)) is not None:
        return reason
    if call.places >= MOST_PLACES:
        return f"they count fewer than {MOST_PLACES} places of tokens"
    if not has_plan(call.mode, call.hidden_size, gpu):
        return f"no weights of {call.hidden_size} hidden units find room in this GPU's registers"
    if (verdict := find_verdict(call)) is None:
        return "there was no trial yet, and none can be held while a CUDA graph is captured"
    return verdict.reason


def verdict_question(call: LayerCall, backend: str, device: str, driver: int) -> Question:
    """Name the verdict that a call needs.

    Args:
        call: the call.
        backend: whose call it is, with its version: another brings other implementations.
        device: the GPU's name.
        driver: the driver's version.
    """
    layer = cubins.digest_sources(), call.mode, call.hidden_size, call.dtype
    return Question(backend, device, driver, *layer, *shape_class(call.rows, call.width))


def computed_steps(implementation: str, lengths: Lengths) -> int:
    """How many steps of rows an implementation computes, padding included.

    >>> computed_steps("kernels", Lengths([3, 5])), computed_steps("padded", Lengths([3, 5]))
    (8, 10)
    """
    exact = implementation in NO_PADDING_COMPUTED
    return lengths.tokens if exact else len(lengths) * lengths.width
