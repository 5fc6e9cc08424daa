"""Storm events at a stream gauge: discharge drives turbidity, with hysteresis."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ragged.data.reading import read_events
from ragged.data.sources import (
    Roles,
    Series,
    Source,
    backward_rate,
    check_positive,
    check_targets,
    check_time,
)

PACKAGED = Path(__file__).with_name("usgs_01191000_storms.csv.gz")


class Storms(Source):
    """Storm events with discharge known and turbidity to forecast.

    Columns of the events: `log_discharge` (ln of m³/s), `discharge_rate` (change of it per hour,
    from the step before to this one, 0 at the first) and the target `log_turbidity` (ln of FNU).
    Time is in hours.

    Args:
        path: a CSV or .csv.gz table with the columns event, minute, discharge_m3s and
            turbidity_fnu, events in time order. By default the 316 events of USGS gauge 01191000
            that come with the package.

    Example:
        >>> events = Storms().events()
        >>> len(events), events[0].steps
        (316, 254)
        >>> round(float(np.exp(events[0].columns["log_discharge"][0])), 5)  # m³/s
        0.27269
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path

    @property
    def roles(self) -> Roles:
        """Discharge and its rate are known; turbidity is the target."""
        return Roles(known=("log_discharge", "discharge_rate"), past=(), target=("log_turbidity",))

    @property
    def driver(self) -> str:
        """Discharge drives turbidity."""
        return "log_discharge"

    @property
    def time_label(self) -> str:
        """Hours since the start of the event."""
        return "time since the start of the event (h)"

    @property
    def units(self) -> dict[str, str]:
        """The unit of each column."""
        return {"log_discharge": "ln(m³/s)", "discharge_rate": "1/h", "log_turbidity": "ln(FNU)"}

    def events(self) -> list[Series]:
        """The events of the table, in its order.

        Raises:
            DataError: a table that `read` refuses, or an unknown turbidity.
        """
        events = self.read(PACKAGED if self.path is None else Path(self.path))
        check_targets(events, self.roles)
        return events

    def read(self, path: Path) -> list[Series]:
        """Read a table of storm events; an empty turbidity becomes NaN.

        Args:
            path: CSV or .csv.gz with the columns event, minute, discharge_m3s, turbidity_fnu.

        Raises:
            DataError: a table that `read_events` refuses, time that does not increase in even
                steps, discharge or turbidity of 0 or less.
        """
        required = ("minute", "discharge_m3s", "turbidity_fnu")
        table = read_events(path, required, "event", may_be_empty=("turbidity_fnu",))
        return [
            _event(name, *(columns[column] for column in required))
            for name, columns in table.items()
        ]

    def raw_target(self, name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
        """Undo the logarithm: `log_turbidity` in ln(FNU) becomes `turbidity_fnu` in FNU.

        Args:
            name: a target column; any other is returned unchanged.
            values: its values, any shape.

        >>> Storms().raw_target("log_turbidity", np.array([0.0]))
        ('turbidity_fnu', array([1.]))
        """
        if name == "log_turbidity":
            return "turbidity_fnu", np.exp(values)
        return name, values


def _event(name: str, minute: np.ndarray, discharge: np.ndarray, turbidity: np.ndarray) -> Series:
    check_time(name, minute, "minute")
    check_positive(name, discharge, "discharge_m3s")
    check_positive(name, turbidity, "turbidity_fnu")
    hours = minute / 60.0
    level = np.log(discharge)
    columns = {
        "log_discharge": level,
        "discharge_rate": backward_rate(level, hours),
        "log_turbidity": np.log(turbidity),
    }
    return Series(name, hours, columns)
