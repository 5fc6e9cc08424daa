"""Figures as SVG inside a page, themed by its style sheet and reproducible."""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

from ragged.report.figures import BLUE, GREEN, GREY, GRID, INK, MUTED, ORANGE

# The colours of the pictures are the light theme; the page's variables replace them.
THEME = {
    INK: "ink", MUTED: "muted", GRID: "grid",
    BLUE: "blue", ORANGE: "orange", GREEN: "green", GREY: "grey",
}  # fmt: skip
STYLE = {  # for figures.style: text as text, reproducible ids
    "svg_fonttype": "none",
    "svg_hashsalt": "ragged",
    "figure_facecolor": "none",
    "axes_facecolor": "none",
}
PLAIN = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def to_svg(figure: Any, name: str, title: str, description: str) -> str:
    """Draw a figure as an `<svg>` element; to be called inside `figures.style(**STYLE)`.

    Args:
        figure: of matplotlib.
        name: unique in the page; the prefix of the figure's ids.
        title: for screen readers.
        description: likewise.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata=PLAIN)  # `savefig` would draw it twice
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): value for key, value in element.attrib.items()}
    for defs in root.findall("defs"):  # the page has its only rule
        for sheet in defs.findall("style"):
            defs.remove(sheet)
    _rename(root, name)
    for element in root.iter():
        _restyle(element)
    box = root.attrib["viewBox"]
    root.attrib = {
        "viewBox": box,
        "style": f"min-width: {0.9 * float(box.split()[2]):.0f}px",  # so that text is legible
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-description",
    }
    for index, (tag, text) in enumerate((("title", title), ("desc", description))):
        suffix = "title" if tag == "title" else "description"
        child = ElementTree.Element(tag, id=f"{name}-{suffix}")
        child.text = text
        root.insert(index, child)
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    """Drop the namespace, which a page does not need."""
    return name.rpartition("}")[2]


def _rename(root: ElementTree.Element, name: str) -> None:
    """Keep the ids that are referred to, under names that are unique in the page."""
    references = re.compile(r"^#(.+)$|^url\(#(.+)\)$")
    used: dict[str, str] = {}
    for element in root.iter():
        for key, value in element.attrib.items():
            match = references.match(value) if key in ("href", "clip-path") else None
            if match:
                old = match[1] or match[2]
                new = used.setdefault(old, f"{name}-{len(used) + 1}")
                element.attrib[key] = value.replace(f"#{old}", f"#{new}")
    for element in root.iter():
        if "id" in element.attrib:
            old = element.attrib.pop("id")
            if old in used:
                element.attrib["id"] = used[old]


def _restyle(element: ElementTree.Element) -> None:
    """Use the page's colours and font, and two decimals."""
    if "style" in element.attrib:
        style = re.sub(r"font-family:[^;]*;?", "", element.attrib["style"])
        for color, variable in THEME.items():
            style = style.replace(color, f"var(--{variable})")
        element.attrib["style"] = style
    if "d" in element.attrib:
        path = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.2f}", element.attrib["d"])
        element.attrib["d"] = " ".join(path.split())
