"""Data described in YAML: tables, windows and transforms, and no class from elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from ragged.data import (
    CalibrationCurve,
    EncoderDecoderDataModule,
    Log,
    StandardScaler,
    Tables,
    Windows,
)

YAML = """
data:
  source:
    class_path: Tables
    init_args:
      path: {path}
      target: [flow]
      known: [rain]
      static: [area]
      missing: ffill
  windows: {{context: 6, horizon: 4, stride: 2}}
  transforms:
    rain: []
    flow: [Log, {{class_path: CalibrationCurve, init_args: {{driver: rain}}}}, StandardScaler]
"""


@pytest.fixture
def parser():
    jsonargparse = pytest.importorskip("jsonargparse")
    from ragged.runs.config import restrict_imports

    restrict_imports([])
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(EncoderDecoderDataModule, "data")
    return parser


def test_a_module_is_described_in_yaml(parser, tmp_path):
    table = tmp_path / "river.csv"
    rain = np.random.default_rng(0).gamma(1.0, 1.0, 60)
    lines = [f"{value:.4f},{np.exp(value):.4f},7" for value in rain]
    table.write_text("rain,flow,area\n" + "\n".join(lines) + "\n")
    config = parser.parse_string(YAML.format(path=table))
    again = parser.parse_string(parser.dump(config))  # as a run writes it, to be run again
    for each in (config, again):
        data = parser.instantiate(each).data
        assert isinstance(data.source, Tables)
        assert data.layout.windows == Windows(6, 4, 2)
        chain = [Log(), CalibrationCurve("rain"), StandardScaler()]
        assert data.transforms == {"rain": [], "flow": chain}
        np.testing.assert_array_equal(data.train[0].future[:, 0], rain[6:10].round(4))
        assert data.train.lengths[0].tolist() == [6, 4]


def test_values_are_given_on_the_command_line_too(parser):
    given = {"source": "Tables", "source.path": "x.csv", "source.target": "[flow]"}
    given |= {"windows.context": "6", "windows.horizon": "4", "split": "time"}
    config = parser.parse_args([f"--data.{name}={value}" for name, value in given.items()])
    data = parser.instantiate(config).data
    assert (data.layout.windows, data.layout.by_time) == (Windows(6, 4), True)


@pytest.mark.parametrize("named", ["evil_module.Evil", "subprocess.Popen", "Nothing"])
def test_only_transforms_of_ragged_are_named(parser, evil, named, tmp_path):
    from jsonargparse import ArgumentError

    text = YAML.format(path="x.csv").replace("[Log, ", f"[{named}, ")
    with pytest.raises(ArgumentError, match=r"data\.transforms"):
        parser.parse_string(text)
    assert not evil.exists()
