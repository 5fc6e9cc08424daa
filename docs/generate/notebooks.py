"""Three of the examples as notebooks: a file to run, and a page to read."""

from __future__ import annotations

import ast
from pathlib import Path

import jupytext

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = {
    "swap_one_name": "A tagger on torch",
    "flax_rnn": "A tagger on flax",
    "episodes": "Rollouts in which episodes end",
}


def files() -> dict[str, str]:
    """Return `notebooks/NAME.ipynb` and `notebooks/NAME.md`."""
    made = {}
    for name, title in NOTEBOOKS.items():
        notebook = jupytext.reads(_with_title(name, title), fmt="py:percent")
        made[f"notebooks/{name}.ipynb"] = jupytext.writes(notebook, fmt="ipynb")
        text = "\n\n".join(_as_markdown(cell) for cell in notebook.cells)
        made[f"notebooks/{name}.md"] = f"{text}\n\n[The notebook]({name}.ipynb)\n"
    return made


def _with_title(name: str, title: str) -> str:
    """The script in cells: its docstring as text, then one for each of its paragraphs."""
    script = (EXAMPLES / f"{name}.py").read_text()
    body = ast.parse(script).body
    first = script.splitlines(keepends=True)
    starts = [node.lineno - 1 for node in body[1:]]
    head = ast.get_docstring(ast.parse(script))
    cells = [f"# %% [markdown]\n# # {title}\n#\n# {head}\n"]
    begin = starts[0]
    for number in range(begin + 1, len(first) + 1):
        is_end = number == len(first)
        if is_end or (not first[number - 1].strip() and _is_top(first, number)):
            cells.append("# %%\n" + "".join(first[begin:number]).strip() + "\n")
            begin = number
    return "\n".join(cells)


def _is_top(lines: list[str], number: int) -> bool:
    """Whether a statement at the outermost level, or its comment, starts here."""
    return bool(lines[number].strip()) and not lines[number].startswith(" ")


def _as_markdown(cell: dict[str, str]) -> str:
    source = cell["source"]
    return source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
