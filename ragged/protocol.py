"""`Backend`: the interface that `ragged` requires of a framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from ragged.attend.call import AttentionCall
    from ragged.export.program import Exported
    from ragged.lengths import Lengths
    from ragged.recurrent.dispatch import LayerCall
    from ragged.recurrent.shape import RecurrentShape

Array = Any
State = tuple[Array, ...]  # of a recurrent layer: (h, c) of an LSTM, (h,) of the others


class HostData:
    """Data on the host, of no framework."""

    __slots__ = ()


class Backend(Protocol):
    """A module of functions: the interface that `ragged` requires of a framework."""

    name: str
    framework: str  # the import name of the framework itself
    xp: ModuleType  # the framework's array-API namespace
    Recurrent: type  # the module: (mode, *arguments of `ragged.LSTM`, seed=...)
    TrainingStep: type
    export_formats: tuple[str, ...]  # what `export_model` writes, names of `ragged.export.program`

    def owns(self, value: object) -> bool:
        """Whether `value` is an array or a module of this framework."""

    def is_traced(self, array: Array) -> bool:
        """Whether the array has no values yet, being part of a program under construction."""

    def has_values(self, array: Array) -> bool:
        """Whether the array's values can be read: it is not traced, and its device holds them."""

    def is_compiling(self) -> bool:
        """Whether a compiler traces this call, so that host data would become constants."""

    def asarray(self, array: object, *, dtype: str | None = None, like: Array = None) -> Array:
        """Make an array of this framework, on the device of `like`."""

    def to_numpy(self, array: Array) -> np.ndarray:
        """Copy an array of this framework to the host."""

    def promote_arrays(self, function: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Give the arrays of one call, by argument, one floating dtype and device, or refuse them.

        Different floating dtypes are promoted or refused as the framework does.

        Raises:
            DtypeError: an array is not floating, or of another dtype than the framework mixes.
            DeviceError: the arrays lie on several devices.
        """

    def arange_like(self, width: int, *, like: Array = None) -> Array:
        """Return 0, 1, ..., `width` - 1 on the device of `like`; `width` may be symbolic."""

    def gather_steps(self, x: Array, index: Array) -> Array:
        """Gather the steps `index (batch, steps)`, all inside the width, of each row of `x`."""

    def devices(self) -> tuple[str, ...]:
        """Name the available devices, the preferred one first."""

    def pack_sequences(self, x: Array, lengths: object) -> Any:
        """Concatenate the valid steps of all rows, step by step, longest row first."""

    def unpack_to_fixed_length(self, packed: Any, lengths: object, max_length: int) -> Array:
        """Undo `pack_sequences` into `(batch, max_length, *features)`."""

    def run_recurrent(
        self,
        shape: RecurrentShape,
        parameters: Mapping[str, Array],
        x: Array,
        lengths: Lengths,
        state: State | None,
        between_layers: Callable[[Array], Array] | None,
        resets: Array | None = None,
        start: str = "zeros",
        *,
        layout: str = "padded",
    ) -> tuple[Array, State]:
        """Run a checked recurrent layer.

        Args:
            shape: the layer's sizes and cell.
            parameters: `torch.nn`'s.
            x: `(batch, time, features)`, or `(tokens, features)`, rows end to end, if jagged.
            lengths: of the rows.
            state: (h, c) or (h,), each `(layers * directions, batch, size)`; None = zeros.
            between_layers: applied to every layer's output but the last one's.
            resets: boolean, in the shape of the tokens of x; None = none.
            start: what state they reset to, "zeros" or "initial".
            layout: "padded" or "jagged"; outputs lie as x does.

        Returns:
            The outputs, and the state after the last valid step of each row.
        """

    def attend(
        self,
        q: Array,
        k: Array,
        v: Array,
        q_lengths: Lengths,
        k_lengths: Lengths,
        *,
        layout: str = "padded",
        causal: bool = False,
        diagonal: int = 0,
        scale: float | None = None,
        dropout: float = 0.0,
        seed: Any = None,
        need_weights: bool = False,
    ) -> tuple[Array, Array | None]:
        """Let the queries of each row attend to its keys: a checked call of `ragged.attention`.

        Args:
            q: `(batch, time, heads, size)`; or `(tokens, heads, size)`, rows end to end, if jagged.
                What is beyond the rows is never read, and 0 in the result.
            k: as q, of the keys.
            v: as k, with any size; or without heads, the same values for all: the result is then
                the mean over the heads.
            q_lengths: of the rows of q; their width is its time, or the longest that a row may be.
            k_lengths: of those of k and v.
            layout: "padded" or "jagged".
            causal: a query sees key j only where `j - i <= keys - queries + diagonal`, in its row.
            diagonal: see there; -1 leaves out the last key that 0 shows.
            scale: of the products of queries and keys; None = `size**-0.5`.
            dropout: the share of weights that is dropped, and the others scaled up.
            seed: of what is dropped: an integer, or an array of the backend's own.
            need_weights: return the weights too, before any is dropped, which costs their memory.

        Returns:
            The result, as q lies, and the weights `(batch, heads, q_width, k_width)` or None.
        """

    def recurrent_reasons(self, call: LayerCall) -> dict[str, str | None]:
        """Return why each implementation, in order, does not run a call; None = it can."""

    def attention_reasons(self, call: AttentionCall) -> dict[str, str | None]:
        """Return why each implementation of attention does not run a call; None = it can."""

    def create_model(self, description: Any) -> Any:
        """Build the native module that a `ragged.models` description describes."""

    def get_parameters(self, module: Any) -> dict[str, np.ndarray]:
        """Copy a module's parameters to the host under their canonical names."""

    def set_parameters(self, module: Any, parameters: Mapping[str, np.ndarray]) -> None:
        """Write parameters of canonical names into a module."""

    def to(self, module: Any, *, device: str, dtype: str) -> Any:
        """Move a module to a device and a floating dtype."""

    def init_process_group(self) -> AbstractContextManager[Any]:
        """Join the process group of a distributed training, until the end of the block.

        It yields an object with `rank` and `broadcast(value)`, which returns the value of rank 0.
        """

    def predict(self, module: Any, batch: Any, *, need_weights: bool = False) -> Any:
        """Run a forecasting model in inference mode on a host batch: a `Forecast` on the host."""

    def export_model(
        self, module: Any, path: Path, *, format: str, quantiles: tuple[float, ...] = ()
    ) -> None:
        """Write a forecasting model, in inference mode, as one program for batches of any size.

        Outputs that are `quantiles` are sorted for each target.
        """

    def load_exported(self, path: Path, *, format: str) -> Exported:
        """Read what `export_model` wrote, as a function of NumPy arrays."""


MEMBERS = tuple(
    sorted(
        {*Backend.__annotations__, *(n for n, v in vars(Backend).items() if callable(v))}
        - {"__init__", "__subclasshook__", "_no_init_or_replace_init"}
    )
)
