"""The reference of configuration files, made from the classes that read them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

from docstring_parser import DocstringStyle, parse

from ragged import data, models
from ragged.runs.parser import train_parser
from ragged.training import TrainerConfig, lr_schedules, optimizers

HEAD = """\
# Configuration files

Made from the classes that read a file. `ragged train --print_config` prints a complete one;
[data](../guides/data.md) and [training](../guides/training.md) explain. Where a class is named,
`class_path` holds its name and `init_args` its arguments.
"""
RUN = ("name", "runs", "backend", "seed")
FROM_THE_DATA = ("past_features", "future_features", "static_features", "context_length",
                 "reference_length")  # fmt: skip
PARTS = {
    "model": [models.EncoderDecoderLSTM, models.AttentionLSTM, models.TransformerLSTM,
              models.TemporalFusionTransformer, models.PFTemporalFusionTransformer, models.XTFT],
    "data": [data.EncoderDecoderDataModule],
    "data.source": [data.Tables, data.Storms, data.MagnetHysteresis],
    "data.windows": [data.Windows],
    "data.transforms": [data.StandardScaler, data.RobustScaler, data.Log, data.Difference,
                        data.CalibrationCurve],
    "trainer": [TrainerConfig],
    "trainer.optimizer": [optimizers.AdamW, optimizers.Adam, optimizers.SGD],
    "trainer.lr_schedule": [lr_schedules.Constant, lr_schedules.WarmupCosine,
                            lr_schedules.ReduceLROnPlateau],
}  # fmt: skip


def page() -> str:
    """Write the page."""
    lines = [HEAD, "## The run", "", *_table(_of_the_run()), ""]
    for key, classes in PARTS.items():
        lines += [f"## `{key}`", ""]
        for each in classes:
            lines += [f"### {each.__name__}", "", _first_line(each), "", *_table(_of(each)), ""]
    return "\n".join(lines)


def _of_the_run() -> Iterator[tuple[str, str, str, str]]:
    for action in train_parser()._actions:
        if action.help and "." not in action.dest and action.dest in RUN:
            type_name = getattr(action._typehint, "__name__", str(action._typehint))
            yield action.dest, type_name, repr(action.default), action.help


def _of(each: type) -> Iterator[tuple[str, str, str, str]]:
    """Each argument with its type, default and meaning.

    Raises:
        KeyError: the docstring does not speak of an argument.
    """
    said = {}
    for base in reversed(each.__mro__):
        text = parse(inspect.getdoc(base) or "", style=DocstringStyle.GOOGLE)
        said |= {p.arg_name: p.description for p in text.params}
    for name, parameter in inspect.signature(each).parameters.items():
        yield name, _type(parameter.annotation), _default(each, parameter), said[name] or ""


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:ragged|collections|typing)(?:\.\w+)*\.", "", text)


def _default(each: type, parameter: inspect.Parameter) -> str:
    if parameter.name in FROM_THE_DATA:
        return "from the data"
    if parameter.default is inspect.Parameter.empty:
        return "required"
    value = parameter.default
    if dataclasses.is_dataclass(each) and type(value).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":
        (field,) = (f for f in dataclasses.fields(each) if f.name == parameter.name)
        value = field.default_factory  # type: ignore[assignment]
    return f"`{getattr(value, '__name__', repr(value))}`"


def _first_line(each: type) -> str:
    return (inspect.getdoc(each) or "").partition("\n")[0]


def _table(rows: Iterator[tuple[str, str, str, str]]) -> list[str]:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, type_name, default, meaning in rows:
        cells = f"`{name}`", f"`{type_name}`", default, " ".join(meaning.split())
        lines.append("| " + " | ".join(map(_escape, cells)) + " |")
    return lines if lines[2:] else ["It has no arguments."]


def _escape(cell: str) -> str:
    """Escape what would end a cell of a table; in code nothing does."""
    return re.sub(r"`[^`]*`|\|", lambda found: found[0] if len(found[0]) > 1 else r"\|", cell)
