"""Public data sets as packages ship them, each described as a user would at the first try."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Packages and the licence of each; of the data its own documentation tells.
LICENCES = {
    "vega_datasets": "MIT",
    "bokeh_sampledata": "BSD-3-Clause",
    "statsmodels": "BSD-3-Clause",
    "sktime": "BSD-3-Clause",
}


@dataclass(frozen=True)
class PublicSet:
    """A data set, and the arguments of `Tables` beside its path.

    Args:
        package: that ships it.
        file: within the package.
        arguments: of the first try.
        setting: what the refusal of the first try names, and then that of the next.
    """

    package: str
    file: str
    arguments: dict[str, Any]
    setting: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its file."""
        return Path(self.file).name

    def locate(self) -> Path | None:
        """Return the path of the file; None if its package is not installed."""
        spec = find_spec(self.package)
        if spec is None or spec.submodule_search_locations is None:
            return None
        return Path(next(iter(spec.submodule_search_locations))) / self.file


def _set(package: str, file: str, target: str, *, setting: Any = None, **more: Any) -> PublicSet:
    return PublicSet(package, file, {"target": [target], **more}, setting or {})


def _vega(file: str, *arguments: str, **more: Any) -> PublicSet:
    return _set("vega_datasets", f"_data/{file}", *arguments, **more)


def _bokeh(file: str, *arguments: str, **more: Any) -> PublicSet:
    return _set("bokeh_sampledata", f"_data/{file}", *arguments, **more)


def _statsmodels(name: str, *arguments: str, **more: Any) -> PublicSet:
    return _set("statsmodels", f"datasets/{name}/{name}.csv", *arguments, **more)


def _sktime(name: str, *arguments: str, **more: Any) -> PublicSet:
    return _set("sktime", f"datasets/data/{name}/{name}.csv", *arguments, **more)


SETS = (
    _vega("iowa-electricity.csv", "net_generation", time="year", group="source"),
    _vega("seattle-temps.csv", "temp", time="date", setting={"gaps": "split"}),
    _vega("seattle-weather.csv", "temp_max", time="date", past=["precipitation", "weather"]),
    _vega("sf-temps.csv", "temp", time="date", setting={"gaps": "split"}),
    _vega("stocks.csv", "price", time="date", group="symbol"),
    _vega("us-employment.csv", "nonfarm", time="month"),
    _bokeh(
        "CGM.csv.gz",
        "glucose",
        time="datetime",
        setting={"duplicates": "mean", "gaps": "split"},
    ),
    _bokeh("cycling.csv.gz", "power", time="time", setting={"duplicates": "mean", "gaps": "split"}),
    _bokeh(
        "emissions.csv.gz", "emissions", time="year", group="country", setting={"gaps": "split"}
    ),
    _bokeh(
        "gapminder.csv.gz",
        "life_expectancy",
        time="year",
        group="country",
        setting={"missing": "ffill"},
    ),
    _bokeh("lincoln_weather.csv", "TMAX", time="DATE", setting={"missing": "ffill"}),
    _bokeh("obiszow_mtb_xcm.csv", "alt"),
    _bokeh("percent-bachelors-degrees-women-usa.csv", "Biology", time="Year"),
    _bokeh("population.csv.gz", "Value", time="Year", group=["Location", "Sex", "AgeGrp"]),
    _bokeh(
        "sea_surface_temperature.csv.gz",
        "temperature (celsius)",
        time="time (UTC)",
        setting={"duplicates": "mean", "gaps": "split"},
    ),
    _bokeh("stocks.csv.gz", "Close", time="Date", group="Ticker"),
    _bokeh("unemployment1948.csv", "Annual", time="Year"),
    _bokeh("us_marriages_divorces.csv", "Marriages", time="Year", setting={"missing": "ffill"}),
    _statsmodels("co2", "co2", time="date", setting={"missing": "ffill"}),
    _statsmodels("copper", "COPPERPRICE", time="YEAR"),
    _statsmodels("elec_equip", "STS.M.I7.W.TOVT.NS0016.4.000", time="DATE"),
    _statsmodels("elnino", "JAN", time="YEAR"),
    _statsmodels("grunfeld", "invest", time="year", group="firm"),
    _statsmodels("macrodata", "realgdp"),
    _statsmodels("nile", "volume", time="year"),
    _statsmodels("sunspots", "SUNACTIVITY", time="YEAR"),
    _set("statsmodels", "datasets/danish_data/data.csv", "lrm", time="period"),
    _set("statsmodels", "datasets/interest_inflation/E6.csv", "Dp"),
    _set(
        "statsmodels",
        "regression/tests/results/dietox.csv",
        "Weight",
        time="Time",
        group="Pig",
    ),
    _sktime("Airline", "Passengers", time="Date"),
    _sktime("Longley", "TOTEMP", time="YEAR"),
    _sktime("Lynx", "0", time=""),
    _sktime("PBS_dataset", "Scripts", time="Month"),
    _sktime("ShampooSales", "Sales", time="Time"),
    _sktime("Uschange", "Consumption", time="Quarter"),
    _sktime("seatbelts", "KSI", time=""),
    _sktime("solar", "solar_gen", time="datetime_gmt"),
    _sktime("yahoo", "data"),
)
