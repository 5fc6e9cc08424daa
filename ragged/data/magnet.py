"""Magnet cycles: a current drives a field with memory, saturation and eddy currents.

The static law is a Prandtl-Ishlinskii model: a weighted sum of play operators, then saturation. It
depends on the reversal points of the current only, not on how fast they were reached, and it
forgets a minor loop when the loop closes. Eddy currents then make the field lag behind.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ragged.checks import as_size
from ragged.data.reading import read_events
from ragged.data.sources import (
    Roles,
    Series,
    Source,
    backward_rate,
    check_targets,
    check_time,
)
from ragged.errors import OptionError

MAXIMUM_CURRENT = 100.0  # A
SATURATION_FIELD = 1.5  # T
THRESHOLDS = np.linspace(0.0, 60.0, 13)  # A
WEIGHTS = np.exp(-THRESHOLDS / 25.0)
WEIGHTS = WEIGHTS / float(np.sum(WEIGHTS))
KNEE = 60.0  # A, where saturation sets in
MAX_STEPS = 10**8  # of all cycles; some GB
RAMP_STEPS = (8, 31)  # the shortest ramp, and one more than the longest


def play(
    u: np.ndarray, threshold: float | np.ndarray, initial: float | np.ndarray = 0.0
) -> np.ndarray:
    """The play (backlash) operator: the output follows only when pushed at a distance.

    Args:
        u: `(steps,)` the input.
        threshold: half the width of the play, 0 or more, in units of `u`; a number or
            `(operators,)`.
        initial: the output before the first step; a number or `(operators,)`.

    Returns:
        `(steps,)` float64, or `(steps, operators)`.

    >>> play(np.array([0.0, 3.0, 2.0, -3.0]), 1.0).tolist()
    [0.0, 2.0, 2.0, -2.0]
    """
    width = np.asarray(threshold, dtype=np.float64)
    state = np.broadcast_to(np.asarray(initial, dtype=np.float64), width.shape)
    output = np.empty((len(u), *width.shape))
    for step, value in enumerate(u):
        state = np.maximum(value - width, np.minimum(value + width, state))
        output[step] = state
    return output


def hysteresis(u: np.ndarray) -> np.ndarray:
    """The static field of a magnet that starts demagnetised.

    Args:
        u: `(steps,)` the current in A.

    Returns:
        `(steps,)` float64, the field in T, before any lag.

    >>> field = hysteresis(np.array([0.0, 80.0, 0.0]))
    >>> bool(field[0] == 0.0), bool(field[2] > 0.1)  # a remanent field
    (True, True)
    """
    drive = play(u, THRESHOLDS) * WEIGHTS
    return SATURATION_FIELD * np.tanh(drive.sum(axis=-1) / KNEE)


def eddy_lag(field: np.ndarray, time_constant: float) -> np.ndarray:
    """Delay a field by a first-order low-pass filter that starts in equilibrium.

    Args:
        field: `(steps,)` the static field in T.
        time_constant: in steps; 0 leaves the field unchanged.

    Returns:
        `(steps,)` float64 in T. After a jump the rest of it shrinks by exp(-1 / time_constant) a
        step.

    Raises:
        OptionError: a negative time constant.

    >>> eddy_lag(np.array([0.0, 1.0, 1.0]), 1.0 / np.log(2.0)).round(6).tolist()
    [0.0, 0.5, 0.75]
    """
    _check_time_constant("eddy_lag", "time_constant", time_constant)
    lagged = np.array(field, dtype=np.float64)
    decay = float(np.exp(-1.0 / time_constant)) if time_constant > 0 else 0.0
    for step in range(1, len(lagged)):
        lagged[step] += decay * (lagged[step - 1] - lagged[step])
    return lagged


def current_waveform(generator: np.random.Generator, steps: int) -> np.ndarray:
    """A random current: smooth ramps from 0 A up and down between random reversal points.

    Args:
        generator: of the random numbers.
        steps: how many.

    Returns:
        `(steps,)` float64 in A, at most `MAXIMUM_CURRENT` in size.
    """
    ramps = [np.zeros(1)]
    direction = 1.0 if generator.random() < 0.5 else -1.0
    start, count = 0.0, 1
    while count < steps:
        reversal = start + generator.random() * (direction * MAXIMUM_CURRENT - start)
        length = int(generator.integers(*RAMP_STEPS))
        progress = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, length + 1) / length)
        ramps.append(start + (reversal - start) * progress)
        start, direction, count = reversal, -direction, count + length
    return np.concatenate(ramps)[:steps]


class MagnetHysteresis(Source):
    """Generated magnet cycles with the current known and the field to forecast.

    Columns of the events: `current` (A), `current_rate` (A per step, backward, 0 at the first) and
    the target `field` (T). Time is in steps. A cycle is a pure function of the seed, its number
    and the other arguments, so asking for more cycles leaves the first ones as they were.

    Args:
        cycles: how many.
        min_steps: the shortest cycle, in steps.
        max_steps: the longest cycle, in steps; lengths are uniform between the two.
        eddy_time_constant: by how many steps the field lags; 0 turns the lag off.
        seed: of the random lengths and currents; 0 or more.

    Raises:
        OptionError: no cycles, cycles below 2 steps, a longest below the shortest, a negative
            time constant or seed.

    Example:
        >>> event = MagnetHysteresis(cycles=1, min_steps=50, max_steps=50).events()[0]
        >>> event.steps, sorted(event.columns)
        (50, ['current', 'current_rate', 'field'])
    """

    def __init__(
        self,
        cycles: int = 200,
        min_steps: int = 40,
        max_steps: int = 240,
        eddy_time_constant: float = 2.0,
        seed: int = 0,
    ) -> None:
        for argument, value, minimum in (
            ("cycles", cycles, 1),
            ("min_steps", min_steps, 2),
            ("max_steps", max_steps, min_steps),
            ("seed", seed, 0),
        ):
            as_size("MagnetHysteresis", argument, value, minimum=minimum, maximum=None)
        if cycles * max_steps > MAX_STEPS:
            expected, remedy = f"at most {MAX_STEPS} steps in all", "Lower it, or max_steps."
            raise OptionError.of("MagnetHysteresis", "cycles", cycles, expected, remedy)
        _check_time_constant("MagnetHysteresis", "eddy_time_constant", eddy_time_constant)
        self.cycles, self.min_steps, self.max_steps = cycles, min_steps, max_steps
        self.eddy_time_constant, self.seed = eddy_time_constant, seed

    @property
    def roles(self) -> Roles:
        """The current and its rate are known; the field is the target."""
        return Roles(known=("current", "current_rate"), past=(), target=("field",))

    @property
    def driver(self) -> str:
        """The current drives the field."""
        return "current"

    @property
    def time_label(self) -> str:
        """Steps since the start of the cycle."""
        return "time since the start of the cycle (steps)"

    @property
    def units(self) -> dict[str, str]:
        """The unit of each column."""
        return {"current": "A", "current_rate": "A/step", "field": "T"}

    def events(self) -> list[Series]:
        """Generate the cycles, in order."""
        events = [self._cycle(number) for number in range(self.cycles)]
        check_targets(events, self.roles)
        return events

    def read(self, path: Path) -> list[Series]:
        """Read a table of cycles; an empty field becomes NaN.

        Args:
            path: CSV or .csv.gz with the columns cycle, step, current_a (A) and field_t (T).

        Raises:
            DataError: a table that `read_events` refuses, or steps that do not increase evenly.
        """
        required = ("step", "current_a", "field_t")
        table = read_events(path, required, "cycle", may_be_empty=("field_t",))
        for name, columns in table.items():
            check_time(name, columns["step"], "step")
        return [
            _event(name, columns["step"], columns["current_a"], columns["field_t"])
            for name, columns in table.items()
        ]

    def raw_target(self, name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
        """Return `field` under its name in files, `field_t`, in T.

        Args:
            name: a target column; any other is returned unchanged.
            values: its values, any shape.
        """
        return ("field_t" if name == "field" else name), values

    def _cycle(self, number: int) -> Series:
        generator = np.random.default_rng([self.seed, number])
        steps = int(generator.integers(self.min_steps, self.max_steps + 1))
        current = current_waveform(generator, steps)
        field = eddy_lag(hysteresis(current), self.eddy_time_constant)
        return _event(str(number), np.arange(steps, dtype=np.float64), current, field)


def _event(name: str, step: np.ndarray, current: np.ndarray, field: np.ndarray) -> Series:
    rate = backward_rate(current, step)
    return Series(name, step, {"current": current, "current_rate": rate, "field": field})


def _check_time_constant(function: str, argument: str, value: float) -> None:
    if not value >= 0:
        raise OptionError.of(function, argument, str(value), "0 or more", "Give steps.")
