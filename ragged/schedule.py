"""Schedules: which rows are computed in which steps, made on the host from lengths alone.

Sort the rows, longest first. How many are still alive at each step is a staircase going down, and
a schedule is a coarser staircase that covers it:

    padded      one stair: every row, for as many steps as the longest has
    segments    a few stairs: at each, the rows that have ended leave the batch
    packed      a stair wherever a row ends: no filler at all, and one small kernel a step
    native      the same stairs in one call: kernels of our own take rows from end to end

What a stair computes beyond a row's end is held: it changes no output, state or gradient. So a
schedule changes speed, never numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ragged.backend import get_backend
from ragged.checks import as_choice, as_size
from ragged.kernels import available
from ragged.lengths import POLICIES, Lengths
from ragged.ops.packing import should_use_packing

GRAIN = 16  # stairs begin and end at multiples of a 16th of the batch and of the width


class Piece(NamedTuple):
    """One stair: the first `rows` of the sorted rows, from step `start` to step `stop`."""

    rows: int
    start: int
    stop: int

    @property
    def steps(self) -> int:
        """How many steps it runs."""
        return self.stop - self.start


@dataclass(frozen=True)
class Schedule:
    """The pieces of a batch, in the order of time.

    Args:
        kind: "padded", "segments", "packed" or "native".
        pieces: the stairs; empty if no row has a step.
        seconds: what a layer is predicted to take, forward and backward.
    """

    kind: str
    pieces: tuple[Piece, ...]
    seconds: float = field(default=0.0, compare=False)

    @property
    def computed(self) -> int:
        """How many steps of rows are computed, filler included."""
        return sum(piece.rows * piece.steps for piece in self.pieces)

    @property
    def steps(self) -> int:
        """How many steps follow one another."""
        return sum(piece.steps for piece in self.pieces)


@dataclass(frozen=True)
class Costs:
    """What one LSTM layer costs on a device, forward and backward, in seconds.

    A piece of n rows and T steps costs `call + T * (step + rate * (n + thin) * work)`, where
    `work = hidden * (hidden + input) + gates * hidden` counts the products and the gates of a row.

    Args:
        call: a dense call, whatever its size.
        step: a step, whatever its size.
        rate: a product of a row's step.
        thin: rows that a step costs beyond its own: thin products run at a fraction of the peak.
        gates: products that the nonlinearities of one hidden unit are worth.
        pieces: the most pieces worth having; None = no row can leave the batch.
        packed_step: a step of the packed kernel; infinite if there is none.
        packed_rate: how many times slower than a dense one it works on a row.
        native: what our own kernels cost, in whose one call all pieces run; None if there are none.
    """

    call: float
    step: float
    rate: float
    thin: float
    gates: float
    pieces: int | None
    packed_step: float = float("inf")
    packed_rate: float = 1.0
    native: Costs | None = None

    def row(self, hidden_size: int, input_size: int) -> float:
        """The seconds of one row's step."""
        return self.rate * (hidden_size * (hidden_size + input_size) + self.gates * hidden_size)


def is_native(lengths: Lengths) -> bool:
    """Whether kernels of our own run these lengths, where a backend has them, without a plan."""
    return lengths.policy == "auto" and available()


def plan(lengths: Lengths, costs: Costs, *, hidden_size: int, input_size: int) -> Schedule:
    """Make the schedule that the policy of `lengths` asks for, once for each kind of layer.

    "auto" takes the cheapest, and our own kernels unasked where there are any: they compute no
    filler and wait at no step, so that nothing else comes near. What a backend does not have is
    padded.
    """
    known = (costs, hidden_size, input_size)
    if known not in lengths.plans:
        lengths.plans[known] = _plan(lengths, costs, hidden_size, input_size)
    return lengths.plans[known]


def _plan(lengths: Lengths, costs: Costs, hidden_size: int, input_size: int) -> Schedule:
    forced = {"always": "packed", "never": "padded", "segments": "segments"}.get(lengths.policy)
    if lengths.policy == "rule":
        forced = "packed" if should_use_packing(lengths) else "padded"
    if lengths.policy == "auto" and costs.native:
        return _native(lengths, costs.native, hidden_size, input_size)
    if lengths.policy == "auto" and lengths.is_full:
        forced = "padded"
    if forced == "segments":  # the least filler, whatever a call costs
        costs = replace(costs, call=0.0)
    found = candidates(lengths, costs, hidden_size=hidden_size, input_size=input_size)
    if forced:
        return found.get(forced, found["padded"])
    return min(found.values(), key=lambda each: each.seconds)


def candidates(
    lengths: Lengths, costs: Costs, *, hidden_size: int, input_size: int
) -> dict[str, Schedule]:
    """Make one schedule of each kind with its predicted cost."""
    descending = np.sort(lengths.host)[::-1]
    batch, width = len(lengths), lengths.width
    row = costs.row(hidden_size, input_size)

    def seconds(rows: Any, steps: Any) -> Any:
        return costs.call + steps * (costs.step + row * (rows + costs.thin))

    def dense(kind: str, pieces: tuple[Piece, ...]) -> Schedule:
        return Schedule(kind, pieces, sum(float(seconds(p.rows, p.steps)) for p in pieces))

    found = {"padded": dense("padded", (Piece(batch, 0, width),) if batch and width else ())}
    if costs.pieces is not None:
        cut = _cheapest_stairs(descending, batch, width, costs.pieces, seconds)
        found["segments"] = dense("segments", cut)
    if np.isfinite(costs.packed_step):
        exact = exact_stairs(descending)
        packed = sum(
            p.steps * (costs.packed_step + costs.packed_rate * row * (p.rows + costs.thin))
            for p in exact
        )
        found["packed"] = Schedule("packed", exact, packed)
    if costs.native:
        found["native"] = _native(lengths, costs.native, hidden_size, input_size)
    return found


def _native(lengths: Lengths, costs: Costs, hidden_size: int, input_size: int) -> Schedule:
    pieces = exact_stairs(np.sort(lengths.host)[::-1])
    row = costs.row(hidden_size, input_size)
    steps = sum(p.steps * (costs.step + row * (p.rows + costs.thin)) for p in pieces)
    return Schedule("native", pieces, costs.call + steps)


def exact_stairs(descending: np.ndarray) -> tuple[Piece, ...]:
    """Make a piece for each distinct length, without any filler."""
    alive = descending[descending > 0]
    stops, first = np.unique(alive[::-1], return_index=True)
    starts = [0, *stops[:-1].tolist()]
    return tuple(map(Piece, (len(alive) - first).tolist(), starts, stops.tolist()))


def _cheapest_stairs(
    descending: np.ndarray, batch: int, width: int, most: int, seconds: Callable[[Any, Any], Any]
) -> tuple[Piece, ...]:
    """Cut time where it costs least, exactly, at multiples of a GRAINth of the width.

    A piece from cut i to cut j runs all rows alive at cut i, rounded up so that few shapes occur.
    """
    if not descending.size or not descending[0]:
        return ()
    grain = max(1, -(-width // GRAIN))
    cuts = np.unique(np.minimum(np.arange(0, descending[0] + grain, grain), width))
    alive = np.searchsorted(-descending, -cuts, side="left")  # rows longer than each cut
    rows = np.minimum(_round_up(alive, max(1, -(-batch // GRAIN))), batch)
    cost = np.where(
        np.tri(len(cuts), dtype=bool),
        np.inf,
        seconds(rows[:, None], cuts[None, :] - cuts[:, None]),
    )
    edges = cheapest_cuts(cost, most)
    return tuple(Piece(int(rows[i]), int(cuts[i]), int(cuts[j])) for i, j in pairwise(edges))


def cheapest_cuts(cost: np.ndarray, most: int) -> list[int]:
    """Go from the first place to the last in at most `most` steps that cost least together.

    Exact, by dynamic programming: after k rounds `best[j]` is the least cost of reaching place j
    in k steps, and `origins[k - 1][j]` is where the last of them starts.

    Args:
        cost: `(places, places)`, of a step from i to j; infinite where there is none.
        most: steps, 1 or more.

    >>> cheapest_cuts(np.array([[np.inf, 1, 5], [np.inf, np.inf, 1], [np.inf] * 3]), most=2)
    [0, 1, 2]
    """
    places = len(cost)
    best, origins, totals = np.where(np.arange(places) == 0, 0.0, np.inf), [], []
    for _ in range(min(most, places - 1)):
        reached = best[:, None] + cost
        origins.append(reached.argmin(axis=0))
        best = reached.min(axis=0)
        totals.append(best[-1])
    stops = [places - 1]
    for origin in reversed(origins[: int(np.argmin(totals)) + 1]):
        stops.append(int(origin[stops[-1]]))
    return stops[::-1]


def _round_up(values: np.ndarray, grain: int) -> np.ndarray:
    return -(-values // grain) * grain


def schedule(
    lengths: object,
    *,
    hidden_size: int = 128,
    input_size: int | None = None,
    device: str = "cpu",
    policy: str = "auto",
) -> Schedule:
    """Make the schedule that the chosen backend's LSTM would follow.

    Args:
        lengths: `(batch,)` integers, or `Lengths`, whose own policy then counts.
        hidden_size: of the layer.
        input_size: features of its input; `hidden_size` if not given.
        device: "cpu" or "cuda".
        policy: as in `Lengths`.

    Raises:
        LengthsError, OptionError: lengths or a policy that `Lengths` refuses, a size below 1.

    Example:
        >>> import ragged
        >>> with ragged.use_backend("torch"):
        ...     made = ragged.schedule([90] * 2 + [10] * 30, policy="segments")
        >>> made.kind, [tuple(piece) for piece in made.pieces]
        ('segments', [(32, 0, 12), (2, 12, 90)])
    """
    valid, costs, sizes = _asked("schedule", lengths, hidden_size, input_size, device, policy)
    return plan(valid, costs, **sizes)


def explain(
    lengths: object,
    *,
    hidden_size: int = 128,
    input_size: int | None = None,
    device: str = "cpu",
    policy: str = "auto",
) -> None:
    """Print what each kind of schedule would compute and cost, and which one is taken and why.

    Arguments and errors are those of `schedule`.

    Example:
        >>> import ragged
        >>> with ragged.use_backend("torch"):
        ...     ragged.explain([90] * 2 + [10] * 30, policy="segments")  # doctest: +ELLIPSIS
        32 rows, width 90: 480 tokens, 83 % of the padded batch is padding
        schedule   calls  steps  computed  beyond tokens  predicted
        padded         1     90      2880          500 %  ... ms
        segments       2     90       540           12 %  ... ms  <- taken: policy='segments'
        packed         2     90       480            0 %  ... ms...
    """
    valid, costs, sizes = _asked("explain", lengths, hidden_size, input_size, device, policy)
    found = candidates(valid, costs, **sizes)
    taken = plan(valid, costs, **sizes)
    reason = "the cheapest" if valid.policy == "auto" else f"policy={valid.policy!r}"
    tokens = valid.tokens
    print(
        f"{len(valid)} rows, width {valid.width}: {tokens} tokens, "
        f"{100 * valid.waste:.0f} % of the padded batch is padding"
    )
    print(
        f"{'schedule':<9}{'calls':>7}{'steps':>7}{'computed':>10}{'beyond tokens':>15}  predicted"
    )
    for kind, each in found.items():
        beyond = f"{100 * (each.computed / tokens - 1):.0f} %" if tokens else "-"
        mark = f"  <- taken: {reason}" if kind == taken.kind else ""
        calls = min(1, len(each.pieces)) if kind == "native" else len(each.pieces)
        sizes_shown = f"{calls:>7}{each.steps:>7}{each.computed:>10}{beyond:>15}"
        print(f"{kind:<9}{sizes_shown}  {1e3 * each.seconds:.2f} ms{mark}")


def _asked(
    function: str,
    lengths: object,
    hidden_size: int,
    input_size: int | None,
    device: str,
    policy: str,
) -> tuple[Lengths, Costs, dict[str, int]]:
    policy = as_choice(function, "policy", policy, POLICIES)
    valid = lengths if isinstance(lengths, Lengths) else Lengths(lengths, policy=policy)
    inputs = hidden_size if input_size is None else input_size
    sizes = {"hidden_size": hidden_size, "input_size": inputs}
    sizes = {name: as_size(function, name, value, least=1) for name, value in sizes.items()}
    device = as_choice(function, "device", device, ("cpu", "cuda"))
    return valid, get_backend().lstm_costs(device), sizes
