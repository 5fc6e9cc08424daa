"""What is forecast: public sets as packages ship them, with the windows a user gets unasked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.first_try_sets import SETS, PublicSet
from ragged.data import EncoderDecoderDataModule, Sample, Tables

LEVELS = (0.1, 0.5, 0.9)
# By package and file; without those of many series, of gaps in time, or of fewer than 90 steps.
CHOSEN = (
    ("sktime", "Airline.csv"),
    ("sktime", "PBS_dataset.csv"),
    ("vega_datasets", "us-employment.csv"),
    ("statsmodels", "elec_equip.csv"),
    ("vega_datasets", "stocks.csv"),
    ("sktime", "Uschange.csv"),
    ("vega_datasets", "seattle-weather.csv"),
    ("sktime", "solar.csv"),
    ("statsmodels", "macrodata.csv"),
    ("statsmodels", "sunspots.csv"),
    ("statsmodels", "nile.csv"),
    ("sktime", "Lynx.csv"),
)
QUICK = ("Airline.csv", "Uschange.csv", "nile.csv")


@dataclass(frozen=True, eq=False)
class Task:
    """A set to forecast.

    Args:
        name: of its file.
        data: its data module, which says what is trained on and what is tested.
    """

    name: str
    data: EncoderDecoderDataModule

    @property
    def target(self) -> str:
        """The column to forecast."""
        return self.data.source.roles.target[0]

    @property
    def season(self) -> int:
        """The steps of a season; 1 without."""
        return self.data.source.season

    @property
    def horizon(self) -> int:
        """The steps of a whole test row."""
        return int(self.data.test.lengths[:, 1].max())

    @property
    def rows(self) -> Sequence[Sample]:
        """The test rows."""
        return list(self.data.test.rows)

    @property
    def truth(self) -> np.ndarray:
        """All test steps, one row after the other."""
        return np.concatenate([row.truth(self.target) for row in self.rows])

    def seen(self, row: Sample) -> np.ndarray:
        """The target before the horizon of a row, unknown values forward-filled."""
        from ragged.data.normalization import forward_fill

        seen = forward_fill(row.event.columns[self.target][: row.split])
        return seen[~np.isnan(seen)]


def tasks(quick: bool) -> list[Task]:
    """Return the sets whose packages are installed."""
    by_name: dict[tuple[str, str], PublicSet] = {(s.package, s.name): s for s in SETS}
    found = []
    for key in CHOSEN:
        path = by_name[key].locate()
        if path is None or (quick and key[1] not in QUICK):
            continue
        arguments = {**by_name[key].arguments, **by_name[key].setting}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = EncoderDecoderDataModule(Tables(str(path), **arguments), batch_size=32)
            data.setup()
        found.append(Task(key[1].partition(".")[0], data))
    return found
