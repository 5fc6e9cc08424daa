"""Calibrated quantiles of a forecaster: the same in memory, from its folder and exported."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pytest

from ragged.cli.main import main
from ragged.errors import CheckpointError, OptionError
from ragged.forecasting import Forecaster

QUANTILES = {"loss": "quantile", "quantiles": [0.1, 0.5, 0.9], "validation": 0.25, "max_epochs": 1}
FEW = r"1 of 3 steps of the horizon have too few validation rows to be calibrated by their own"


# Torch warns of its own code, in its exporters.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated")
def test_quantiles_are_calibrated_wherever_they_are_forecast(new_forecaster, frame, tmp_path):
    plain = new_forecaster(**QUANTILES).fit(frame)
    with pytest.warns(UserWarning, match=FEW):  # two shops with 5 steps of validation each
        new_forecaster(**QUANTILES | {"calibrate": True, "validation": 0.1}).fit(frame)
    forecaster = new_forecaster(**QUANTILES, calibrate=True).fit(frame)
    found, expected = forecaster.predict(frame), plain.predict(frame)
    offsets = np.array(forecaster.trained_.saved.state["calibration"])[:3]
    scale = forecaster.trained_.data.normalization.chains["sales"][0].scale
    before = np.sort(expected[["q0.1", "q0.5", "q0.9"]].to_numpy(), axis=1)
    after = np.sort(before + scale * np.tile(offsets, (2, 1)), axis=1)
    np.testing.assert_allclose(found[["q0.1", "q0.5", "q0.9"]].to_numpy(), after, rtol=1e-6)
    assert np.abs(offsets[:, 2]).min() > 0

    run, exported = tmp_path / "run", tmp_path / "exported"
    forecaster.save(run)
    sales, config = tmp_path / "sales.csv", run / "config.yaml"
    frame.to_csv(sales, index=False)
    text = config.read_text()
    config.write_text(text.replace("path: ''", f"path: {sales}"))  # whose rows the export compares
    assert main(["export", str(run), "--format", "torch", "--output", str(exported)]) == 0
    forecasts = []
    for folder in (run, exported):
        output = tmp_path / f"{folder.name}.csv"
        asked = ["--input", str(sales), "--output", str(output), "--horizon", "3"]
        assert main(["predict", str(folder), *asked]) == 0
        forecasts.append(pandas.read_csv(output)["sales_q0.9"])
    np.testing.assert_allclose(forecasts, [found["q0.9"]] * 2, rtol=1e-5)
    loaded = Forecaster.load(run)
    assert loaded.get_params()["calibrate"] is True
    np.testing.assert_allclose(loaded.predict(frame)["q0.9"], found["q0.9"], rtol=1e-6)
    state = json.loads((run / "checkpoints/best/state.json").read_text())
    del state["calibration"]
    (run / "checkpoints/best/state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="offsets, which the end of a training writes"):
        Forecaster.load(run).predict(frame)


def test_what_has_no_intervals_is_not_calibrated(new_forecaster, frame):
    with pytest.raises(OptionError, match=r"`trainer\.calibrate` is True with mse; expected q"):
        new_forecaster(calibrate=True).fit(frame)
    few = {**QUANTILES, "validation": 0.0, "calibrate": True}
    with pytest.raises(OptionError, match="with 0 known validation steps; expected 4 or more"):
        new_forecaster(**few).fit(frame)
