"""The magnet source: the laws of hysteresis hold exactly before the lag."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ragged.data import MagnetHysteresis
from ragged.data.magnet import (
    MAXIMUM_CURRENT,
    SATURATION_FIELD,
    current_waveform,
    eddy_lag,
    hysteresis,
    play,
)
from ragged.errors import DataError, OptionError


def path(*points: float) -> np.ndarray:
    return np.array(points, dtype=np.float64)


def refine(u: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Insert random points between neighbours; return the path and where the old points lie."""
    pieces, places, count = [u[:1]], [0], 1
    for last, value in pairwise(u):
        inner = np.sort(generator.random(generator.integers(0, 5)))
        inner = np.clip(last + (value - last) * inner, min(last, value), max(last, value))
        pieces += [inner, np.array([value])]
        count += len(inner) + 1
        places.append(count - 1)
    return np.concatenate(pieces), np.array(places)


def test_play_follows_only_when_pushed():
    u = path(0, 3, 5, 4, 3, 2, -4, 0)
    assert play(u, 2.0).tolist() == [0, 1, 3, 3, 3, 3, -2, -2]
    assert play(u, 0.0).tolist() == u.tolist()
    assert play(u, 9.0, initial=1.0).tolist() == [1.0] * 8
    both = play(u, np.array([2.0, 0.0]), initial=np.array([0.0, 7.0]))
    np.testing.assert_array_equal(both, np.stack([play(u, 2.0), u], axis=-1))


@pytest.mark.parametrize("seed", range(5))
def test_minor_loops_close_exactly(seed):
    generator = np.random.default_rng(seed)
    top, bottom = 90.0, float(generator.uniform(-90, 0))
    inner_top = float(generator.uniform(bottom + 5, top))
    inner_bottom = float(generator.uniform(bottom, inner_top))
    field = hysteresis(path(0, top, bottom, inner_top, inner_bottom, inner_top))
    assert field[3] == field[5]
    assert field[3] != field[4]


@pytest.mark.parametrize("seed", range(5))
def test_a_larger_excursion_wipes_out_what_lay_inside(seed):
    generator = np.random.default_rng(seed)
    inner = generator.uniform(-40, 40, 20)
    outer = path(0, 80, -80)
    with_memory = hysteresis(np.concatenate([outer, inner, path(80, -20, 30)]))
    without = hysteresis(np.concatenate([outer, path(80, -20, 30)]))
    np.testing.assert_array_equal(with_memory[-3:], without[-3:])


@pytest.mark.parametrize("seed", range(5))
def test_the_static_law_does_not_know_rates(seed):
    generator = np.random.default_rng(seed)
    u = current_waveform(generator, 120)
    fine, places = refine(u, generator)
    assert len(fine) > len(u)
    np.testing.assert_array_equal(hysteresis(fine)[places], hysteresis(u))
    np.testing.assert_array_equal(hysteresis(np.repeat(u, 3))[::3], hysteresis(u))


def test_the_law_is_odd_saturates_and_remembers():
    u = path(0, 30, -70, 50)
    np.testing.assert_array_equal(hysteresis(-u), -hysteresis(u))
    assert 0.9 < float(hysteresis(path(0, 1e4))[-1]) / SATURATION_FIELD <= 1.0
    rising, falling = hysteresis(path(0, -100, 20, 100, 20))[[2, 4]]
    assert falling - rising > 0.1


def test_eddy_lag_is_a_first_order_low_pass():
    step = np.where(np.arange(30) < 5, 1.0, 3.0)
    lagged = eddy_lag(step, 2.0)
    np.testing.assert_array_equal(lagged[:5], 1.0)
    np.testing.assert_allclose(3.0 - lagged[5:], 2.0 * np.exp(-np.arange(1, 26) / 2.0))
    np.testing.assert_array_equal(eddy_lag(step, 0.0), step)
    np.testing.assert_array_equal(step[4:6], [1.0, 3.0])  # the input is left alone
    with pytest.raises(OptionError, match=r"eddy_lag\(\): `time_constant` is -1; expected 0 or"):
        eddy_lag(step, -1)


def test_the_lag_depends_on_the_rate():
    u = path(0, 20, 40, 60)
    slow = eddy_lag(hysteresis(np.repeat(u, 3)), 2.0)[2::3]
    assert (slow[1:] > eddy_lag(hysteresis(u), 2.0)[1:]).all()


def test_currents_ramp_smoothly_within_bounds():
    for seed in range(20):
        current = current_waveform(np.random.default_rng(seed), 240)
        assert current.shape == (240,)
        assert current[0] == 0.0
        assert np.abs(current).max() <= MAXIMUM_CURRENT
        assert np.abs(np.diff(current)).max() < 200 * np.pi / 16


def test_cycles_are_a_function_of_the_seed():
    first = MagnetHysteresis(cycles=6, seed=3).events()
    again = MagnetHysteresis(cycles=9, seed=3).events()
    other = MagnetHysteresis(cycles=6, seed=4).events()
    for one, two in zip(first, again[:6], strict=True):
        assert (one.name, one.steps) == (two.name, two.steps)
        for column in one.columns:
            np.testing.assert_array_equal(one.columns[column], two.columns[column])
    assert [event.steps for event in first] != [event.steps for event in other]


def test_events_hold_what_the_functions_give():
    source = MagnetHysteresis(cycles=40, min_steps=10, max_steps=12, eddy_time_constant=1.5)
    events = source.events()
    assert {event.steps for event in events} == {10, 11, 12}
    event = events[7]
    current = event.columns["current"]
    np.testing.assert_array_equal(event.time, np.arange(event.steps))
    np.testing.assert_array_equal(event.columns["current_rate"], np.diff(current, prepend=0.0))
    np.testing.assert_array_equal(event.columns["field"], eddy_lag(hysteresis(current), 1.5))
    assert source.roles.encoder == ("current", "current_rate", "field")
    assert set(source.units) == set(event.columns)
    assert source.time_label.endswith("(steps)")


def test_read_takes_unknown_fields(tmp_path: Path):
    table = tmp_path / "cycles.csv"
    table.write_text("cycle,step,current_a,field_t\nc,0,1,0.5\nc,1,3,\n")
    (event,) = MagnetHysteresis().read(table)
    np.testing.assert_array_equal(event.columns["current_rate"], [0.0, 2.0])
    np.testing.assert_array_equal(event.columns["field"], [0.5, np.nan])
    assert MagnetHysteresis().raw_target("field", 1)[0] == "field_t"
    assert MagnetHysteresis().raw_target("current", 1)[0] == "current"
    table.write_text("cycle,step,current_a,field_t\nc,0,1,0.5\nc,1,3,1\nc,4,3,1\n")
    with pytest.raises(DataError, match=r"`step` is 4 after 1 \(event 'c', step 2\); expected ev"):
        MagnetHysteresis().read(table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cycles": 0}, "`cycles` is 0; expected 1 or more"),
        ({"min_steps": 1}, "`min_steps` is 1; expected 2 or more"),
        ({"max_steps": 39}, "`max_steps` is 39; expected 40 or more"),
        ({"seed": -1}, "`seed` is -1; expected 0 or more"),
        ({"eddy_time_constant": float("nan")}, "`eddy_time_constant` is nan; expected 0 or more"),
    ],
)
def test_options_are_refused(options, message):
    with pytest.raises(OptionError, match=re.escape(f"MagnetHysteresis(): {message}")):
        MagnetHysteresis(**options)
