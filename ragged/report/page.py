"""The page: its parts as HTML, with all text escaped."""

from __future__ import annotations

import csv
import html
import io
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ragged.evaluation.metrics import format_score
from ragged.report.svg import to_svg

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Section:
    """A heading and its content.

    Args:
        title: the heading, plain text.
        parts: HTML.
        summary: plain text.
    """

    title: str
    parts: Sequence[str]
    summary: str = ""

    @property
    def anchor(self) -> str:
        """The target of links in the contents."""
        return self.title.lower().replace(" ", "-")


def plot(
    figure: Any, name: str, title: str, description: str, numbers: Columns, caption: str = ""
) -> str:
    """A figure with its caption and its numbers as CSV.

    Args:
        figure: of matplotlib, drawn in the page's style.
        name: a word, unique in the page; names the CSV file too.
        title: plain text, for screen readers.
        description: likewise.
        numbers: the columns of the CSV.
        caption: plain text below the figure.
    """
    svg = to_svg(figure, name, title, description)
    link = f'<a class="csv" download="{name}.csv" href="{csv_link(numbers)}">{name}.csv</a>'
    text = f"<span>{escape(caption)}</span>{link}"
    return f"<figure>{svg}<figcaption>{text}</figcaption></figure>"


def side_by_side(*parts: str, narrow: bool = False) -> str:
    """Parts side by side, if the page is wide enough: two, or three narrow ones."""
    name = "beside narrow" if narrow else "beside"
    return f'<div class="{name}">{"".join(parts)}</div>'


def facts(values: Mapping[str, object]) -> str:
    """Names with their values."""
    rows = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in values.items())
    return f"<dl>{''.join(rows)}</dl>"


def cards(values: Sequence[tuple[str, str, str]]) -> str:
    """The main results: a number, its name, and a comparison."""
    items = (
        f"<li><strong>{escape(number)}</strong><b>{escape(name)}</b><span>{escape(note)}</span></li>"
        for number, name, note in values
    )
    return f'<ul class="cards">{"".join(items)}</ul>'


def table(
    columns: Columns, marked: int | None = None, caption: str = "", text: bool = False
) -> str:
    """A table.

    Args:
        columns: by heading; the first one names the rows.
        marked: the index of the highlighted row.
        caption: plain text above it.
        text: the cells hold text, aligned left, not numbers.

    Example:
        >>> table({"name": ["<a>"], "R²": [0.5]})
        '<div class="wide"><table><thead><tr><th scope="col">name</th><th scope="col">R²</th></tr>\
</thead><tbody><tr><th scope="row">&lt;a&gt;</th><td>0.500</td></tr></tbody></table></div>'
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = []
    for index, (first, *others) in enumerate(zip(*columns.values(), strict=True)):
        cells = "".join(f"<td>{escape(cell(value))}</td>" for value in others)
        start = '<tr class="marked">' if index == marked else "<tr>"
        body.append(f'{start}<th scope="row">{escape(cell(first))}</th>{cells}</tr>')
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide"><table{" class=text" * text}>{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def details(summary: str, content: str) -> str:
    """Preformatted text that is folded away."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(content)}</pre></details>"


def heading(text: str) -> str:
    """A heading inside a section."""
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def render(title: str, subtitle: str, lead: str, sections: Sequence[Section]) -> str:
    """Lay the sections out as one self-contained page.

    Args:
        title: plain text.
        subtitle: plain text.
        lead: HTML before the contents.
        sections: in their order.
    """
    page = Path(__file__).with_name("page.html.template").read_text(encoding="utf-8")
    contents = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    return string.Template(page).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        lead=lead,
        contents=contents,
        sections="\n".join(_section(section) for section in sections),
    )


def escape(value: object) -> str:
    """Plain text as HTML."""
    return html.escape(str(value))


def cell(value: object) -> str:
    """A value of a table as text."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else format_score(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def csv_link(columns: Columns) -> str:
    """A link that holds a table as CSV.

    Example:
        >>> csv_link({"epoch": [1], "loss": [0.123456789]})
        'data:text/csv;charset=utf-8,epoch,loss%0A1,0.123457%0A'
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row])
    return f"data:text/csv;charset=utf-8,{quote(buffer.getvalue(), safe=',.-')}"


def _section(section: Section) -> str:
    summary = f'<p class="summary">{escape(section.summary)}</p>' if section.summary else ""
    return (
        f'<section id="{section.anchor}"><h2>{escape(section.title)}</h2>'
        f"{summary}{''.join(section.parts)}</section>"
    )
