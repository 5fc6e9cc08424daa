"""`ragged.explain`: which implementation runs a layer on a batch, and why the others do not."""

from __future__ import annotations

from ragged.backend import get_backend
from ragged.checks import DTYPES, as_choice, as_size
from ragged.implementations import first_of, print_choice
from ragged.lengths import POLICIES, Lengths
from ragged.protocol import Backend
from ragged.recurrent.cells import CELLS
from ragged.recurrent.dispatch import describe_batch
from ragged.recurrent.shape import RecurrentShape


def explain(
    lengths: object,
    *,
    hidden_size: int = 128,
    input_size: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    policy: str = "auto",
    proj_size: int = 0,
    mode: str = "LSTM",
) -> None:
    """Print which implementation runs the chosen backend's layer, and why each other one does not.

    Args:
        lengths: `(batch,)` integers, or `Lengths`, whose own policy is then used.
        hidden_size: of the layer.
        input_size: features of its input; `hidden_size` if not given.
        device: "cpu" or "cuda".
        dtype: of its arrays.
        policy: as in `Lengths`.
        proj_size: of its projection; 0 = none.
        mode: of the layer, as `torch.nn` has it: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU".

    Raises:
        LengthsError, OptionError: lengths or a policy that `Lengths` refuses, a size that the layer
            refuses, another device, dtype or mode.

    Example:
        >>> import ragged
        >>> with ragged.use_backend("torch"):
        ...     ragged.explain([90] * 2 + [10] * 30, policy="never")
        32 rows, width 90: 480 tokens, 83 % of the padded batch is padding
        kernels       the policy asks for padding
        cuda_kernels  they run on a GPU alone
        packed        the policy asks for padding
        padded        runs, since policy='never'
        scan          padded comes first
    """
    policy = as_choice("explain", "policy", policy, POLICIES)
    valid = lengths if isinstance(lengths, Lengths) else Lengths(lengths, policy=policy)
    hidden_size = as_size("explain", "hidden_size", hidden_size, minimum=1)
    inputs = hidden_size if input_size is None else input_size
    inputs = as_size("explain", "input_size", inputs, minimum=1)
    proj_size = as_size("explain", "proj_size", proj_size)
    mode = as_choice("explain", "mode", mode, tuple(CELLS))
    RecurrentShape(inputs, hidden_size, proj_size=proj_size, mode=mode).check_extent()
    device = as_choice("explain", "device", device, ("cpu", "cuda"))
    dtype = as_choice("explain", "dtype", dtype, DTYPES)
    reasons = recurrent_reasons(get_backend(), valid, device, dtype, hidden_size, proj_size, mode)
    print(
        f"{len(valid)} rows, width {valid.width}: {valid.tokens} tokens, "
        f"{100 * valid.padding_fraction:.0f} % of the padded batch is padding"
    )
    condition = "first in order" if valid.policy == "auto" else f"since policy={valid.policy!r}"
    print_choice(reasons, condition)


def recurrent_reasons(
    backend: Backend,
    lengths: Lengths,
    device: str,
    dtype: str = "float32",
    hidden_size: int = 1,
    proj_size: int = 0,
    mode: str = "LSTM",
) -> dict[str, str | None]:
    """Return why each implementation does not run an eager call; None = it can."""
    options = {"hidden_size": hidden_size, "proj_size": proj_size, "mode": mode}
    call = describe_batch(lengths, device=device, dtype=dtype, **options)
    return backend.recurrent_reasons(call)


def recurrent_implementation(
    backend: Backend, lengths: Lengths, device: str, hidden_size: int = 1
) -> str:
    """Name the implementation that runs an eager call of an LSTM in float32."""
    return first_of(recurrent_reasons(backend, lengths, device, hidden_size=hidden_size))
