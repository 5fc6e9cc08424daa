"""Transforms and their chains: fitted on what is known, undone exactly, kept in checkpoints."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

import numpy as np
import pytest

from ragged.data import (
    CalibrationCurve,
    Difference,
    EncoderDecoderDataModule,
    Log,
    Normalization,
    RobustScaler,
    Roles,
    Sample,
    Series,
    StandardScaler,
    Storms,
    Transform,
)
from ragged.errors import DataError, OptionError

nan = np.nan
ROLES = Roles(known=("k",), past=(), target=("t",))
CHAINS: list[list[Transform]] = [
    [],
    [StandardScaler()],
    [RobustScaler()],
    [Log()],
    [Difference()],
    [CalibrationCurve("k", 3)],
    [Log(), Difference(), StandardScaler()],
    [StandardScaler(), Difference(), Difference(), RobustScaler()],
    [Log(), CalibrationCurve("k"), RobustScaler()],
    [Difference(), CalibrationCurve("k", 1), StandardScaler()],
]


def refuses(message: str, error: type[Exception] = DataError):
    return pytest.raises(error, match=re.escape(message))


def event(seed: int = 0, steps: int = 40, *, unknown: tuple[int, ...] = ()) -> Series:
    generator = np.random.default_rng(seed)
    columns = {name: np.exp(generator.normal(0, 1.5, steps)) * 1e3 for name in "kt"}
    columns["t"][list(unknown)] = nan
    return Series(f"e{seed}", np.arange(float(steps)), columns)


def row(of: Series, split: int) -> Sample:
    empty = np.zeros((0, 0))
    return Sample(empty, empty, empty, of, split)


def fit(chain: list[Transform], *events: Series) -> Normalization:
    return Normalization.fit(events or [event()], ROLES, {"t": chain})


def fitted(values: list[float], transform: Transform | None = None) -> Transform:
    """The transform after fitting a column of these values."""
    time = np.arange(float(len(values)))
    found = Series("e", time, {"k": time, "t": np.array(values)})
    return fit([transform or StandardScaler()], found).chains["t"][0]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
@pytest.mark.parametrize("split", [1, 2, 7, 39])
def test_the_inverse_gives_the_values_back(chain, split):
    new = event(1)
    normalization = fit(chain)
    normal = normalization.transform(new)["t"][split:]
    back = normalization.inverse("t", normal, row(new, split))
    np.testing.assert_allclose(back, new.columns["t"][split:], rtol=1e-9)


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_quantiles_are_undone_like_points_and_keep_their_order(chain):
    new, split = event(1), 7
    normalization = fit(chain)
    normal = normalization.transform(new)["t"][split:]
    levels = np.stack([normal - 0.1, normal, normal + 0.1], axis=-1)
    back = normalization.inverse("t", levels, row(new, split))
    for place in range(3):
        alone = normalization.inverse("t", levels[:, place], row(new, split))
        np.testing.assert_allclose(back[:, place], alone, rtol=1e-12)
    assert (np.diff(back, axis=-1) > 0).all()


def test_chains_are_what_their_equations_say():
    known = event()
    k, t = known.columns["k"], known.columns["t"]
    log = np.log(t)
    low, median, high = np.percentile(log, (25, 50, 75))
    change = np.concatenate([[0.0], np.diff(log)])
    powers = np.stack([np.ones_like(k), k, k**2], axis=1) / 1e3 ** np.arange(3)
    residual = log - powers @ np.linalg.lstsq(powers, log, rcond=None)[0]
    for chain, expected in (
        ([Log(), RobustScaler()], (log - median) / (high - low)),
        ([Log(), Difference(), StandardScaler()], (change - change.mean()) / change.std()),
        ([Log(), CalibrationCurve("k", 2)], residual),
    ):
        np.testing.assert_allclose(fit(chain).transform(known)["t"], expected, atol=1e-9)


def rescaled(c: dict, driver: np.ndarray) -> np.ndarray:
    low, high = c["domain"]
    return 2 * (driver - low) / (high - low) - 1


# What each formula says, by who has nothing but the export: x, its constants c and its driver.
FORMULAS = {
    "(x - center) / scale": lambda x, c, driver: (x - c["center"]) / c["scale"],
    "ln(x)": lambda x, c, driver: [math.log(each) for each in x],
    "x - (x of the step before), 0 at an event's first step": lambda x, c, driver: [
        0.0 if step == 0 else x[step] - x[step - 1] for step in range(len(x))
    ],
    "x - sum of coefficients[k] * u**k, u = driver mapped from domain to -1..1": (
        lambda x, c, driver: (
            x - sum(a * rescaled(c, driver) ** k for k, a in enumerate(c["coefficients"]))
        )
    ),
}


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_the_formulas_of_an_export_are_what_is_computed(chain):
    new, normalization = event(1), fit(chain)
    assert set(normalization.formulas) == {type(t).__name__ for t in [*chain, StandardScaler()]}
    values = new.columns["t"]
    for step in json.loads(json.dumps(normalization.to_dict()))["t"]["transforms"]:
        ((name, constants),) = step.items()
        formula = normalization.formulas[name]
        assert formula in FORMULAS
        values = np.array(FORMULAS[formula](values, constants, new.columns["k"]))
    np.testing.assert_allclose(values, normalization.transform(new)["t"], rtol=1e-9, atol=1e-9)


def test_each_known_training_step_counts_once():
    events = [event(0, 5, unknown=(1, 3)), event(1, 9)]
    values = np.concatenate([e.columns["t"] for e in events])
    values = values[~np.isnan(values)]
    (found,) = fit([StandardScaler()], *events).chains["t"]
    assert found == StandardScaler(values.mean(), values.std())


def test_a_constant_column_keeps_scale_one():
    assert fitted([0.1, 0.1, 0.1]) == StandardScaler(0.1, 1.0)
    assert fitted([0.1, 0.1, 0.1], RobustScaler()) == RobustScaler(0.1, 1.0)
    spiky = [0.0] * 9 + [10.0]
    assert fitted(spiky, RobustScaler()) == RobustScaler(0.0, np.std(spiky))


def test_constants_that_are_given_are_kept():
    assert fitted([1.0, 3.0], StandardScaler(center=0.0)) == StandardScaler(0.0, 1.0)
    assert fitted([1.0, 5.0], StandardScaler(scale=100.0)) == StandardScaler(3.0, 100.0)
    curve = CalibrationCurve("k", 1, (1.0, 2.0), (0.0, 1.0))
    assert fitted([5.0, 6.0], curve) is curve


def test_inputs_hold_the_last_value_and_start_at_the_mean():
    train = event()
    normalization = fit([Log(), RobustScaler()], train)
    expected = normalization.transform(train)["t"]
    found = normalization.inputs(event(0, unknown=(0, 1, 5, 6)))["t"]
    np.testing.assert_array_equal(found[[0, 1]], expected.mean())
    np.testing.assert_array_equal(found[[5, 6]], expected[4])
    kept = np.setdiff1d(np.arange(40), [0, 1, 5, 6])
    np.testing.assert_array_equal(found[kept], expected[kept])


def test_changes_start_from_the_last_value_seen():
    known = event(0, unknown=(6,))
    normalization = fit([Difference()])
    back = normalization.inverse("t", np.array([1.0, 2.0]), row(known, 7))
    np.testing.assert_allclose(back, known.columns["t"][5] + [1.0, 3.0])
    with refuses("`t` is never known before step 1 of event 'e0'; expected a value from which"):
        normalization.inverse("t", np.ones(2), row(event(0, unknown=(0,)), 1))


def test_a_driver_is_held_over_the_horizon_too():
    known = event()
    known.columns["k"][[0, 8]] = nan
    (curve,) = fit([CalibrationCurve("k", 1)], known).chains["t"]
    k, t = np.delete(known.columns["k"], 0), np.delete(known.columns["t"], 0)
    k[7] = k[6]
    expected = np.polynomial.Polynomial.fit(k, t, 1)
    np.testing.assert_allclose(curve.coefficients, expected.coef)
    normalization = fit([CalibrationCurve("k", 1)])
    normal = normalization.transform(known)["t"]
    np.testing.assert_allclose(
        normalization.inverse("t", normal[5:], row(known, 5)), known.columns["t"][5:]
    )
    (curve,) = normalization.chains["t"]
    polynomial = np.polynomial.Polynomial(curve.coefficients, domain=curve.domain)
    for step, driver in ((8, known.columns["k"][7]), (0, sum(curve.domain) / 2)):
        assert normal[step] == pytest.approx(known.columns["t"][step] - polynomial(driver))


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_a_normalization_goes_through_json(chain):
    found = fit(chain)
    saved = json.loads(json.dumps(found.to_dict()))
    assert saved == found.to_dict(), "or a run would not go on with it"
    assert Normalization.from_dict(saved) == found


@dataclass(frozen=True)
class Halved(Transform):
    """A transform of a user's own."""

    def transform(self, values, driver=None):
        return values / 2

    def inverse(self, values, driver=None, last=nan):
        return values * 2


def test_a_transform_of_ones_own_goes_through_json_while_it_is_imported():
    found = fit([Halved()])
    assert Normalization.from_dict(found.to_dict()) == found
    with refuses("`saved` is unreadable (KeyError: 'Thirded')"):
        Normalization.from_dict({"t": {"mean": 0.0, "transforms": [{"Thirded": {}}]}})


@pytest.mark.parametrize(
    "saved",
    [
        {"mean": {"t": 0.0}, "scale": {"t": 1.0}},
        {"t": {"transforms": []}},
        {"t": {"mean": nan, "transforms": []}},
        {"t": {"mean": 0.0, "transforms": [{"StandardScaler": {"center": 0.0, "scale": 0.0}}]}},
        {"t": {"mean": 0.0, "transforms": [{"StandardScaler": {"center": None, "scale": 1.0}}]}},
        {"t": {"mean": 0.0, "transforms": [{"StandardScaler": {"median": 0.0}}]}},
        {"t": {"mean": 0.0, "transforms": [{"Affine": {}}]}},
        {"t": {"mean": 0.0, "transforms": ["StandardScaler"]}},
        [],
    ],
    ids=str,
)
def test_damaged_normalizations_are_refused(saved):
    with refuses("expected for each column its mean and its learned transforms. Give what"):
        Normalization.from_dict(saved)


def test_refusals():
    with refuses("Normalization.fit(): `k` is without a known step in training; expected finite"):
        Normalization.fit([], ROLES)
    with refuses("column 't' of event 'e': Log.transform(): `values` is 0 at step 1; expected"):
        fitted([1.0, 0.0], Log())
    with refuses("StandardScaler.fit(): `values` is as large as 2e+300; expected a spread within"):
        fitted([1e300, 2e300], StandardScaler())
    with refuses("`values` is as small as 2e-300; expected a spread within float64. Give the colu"):
        fitted([1e-300, 2e-300], StandardScaler())
    with refuses("`driver` is 'k' with 3 different values over the training steps; expected more"):
        fitted([1.0, 2.0, 3.0], CalibrationCurve("k", 3))
    with refuses("Normalization.inverse(): `column` is 'w'; expected one of ['k', 't']"):
        fit([]).inverse("w", np.zeros(1), row(event(), 1))
    with refuses("`event` is event 'e' without column 't'; expected the columns ['k', 't']"):
        fit([]).transform(Series("e", np.zeros(1), {"k": np.zeros(1)}))
    for transforms, message in (
        ({"tt": [Log()]}, "`transforms` is tt; expected one of ['k', 't']. Write 't'."),
        ({"t": [CalibrationCurve("t")]}, "is of 't' reading 't'; expected another, known column"),
        ({"k": [CalibrationCurve("k")]}, "is of 'k' reading 'k'; expected another, known column"),
    ):
        with refuses(message, OptionError):
            Normalization.fit([event()], ROLES, transforms)
    for made, message in (
        (lambda: StandardScaler(scale=0.0), "StandardScaler(): `scale` is 0.0; expected above 0"),
        (
            lambda: RobustScaler(center=nan),
            "RobustScaler(): `center` is nan; expected a finite number",
        ),
        (lambda: CalibrationCurve("k", -1), "CalibrationCurve(): `degree` is -1; expected 0 or"),
        (lambda: CalibrationCurve("k", 1, (1.0, 2.0)), "`coefficients` is (1.0, 2.0); expected 2"),
        (lambda: CalibrationCurve("k", 0, (1.0,), (1.0, 1.0)), "expected 1 finite numbers, with"),
    ):
        with refuses(message, OptionError):
            made()


def test_a_module_takes_transforms_by_column():
    calibrated: list[Transform] = [CalibrationCurve("log_discharge"), StandardScaler()]
    data = EncoderDecoderDataModule(Storms(), transforms={"log_turbidity": calibrated})
    found = data.test[3]
    back = data.normalization.inverse("log_turbidity", found.target[:, 0], found)
    np.testing.assert_allclose(back, found.truth("log_turbidity"), rtol=1e-9)
    spread = np.concatenate([row.target for row in data.train]).std()
    plain = EncoderDecoderDataModule(Storms()).train
    assert spread == pytest.approx(np.concatenate([row.target for row in plain]).std(), rel=0.2)
