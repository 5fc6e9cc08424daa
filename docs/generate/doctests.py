"""Examples in docstrings as code: the reference would else read `>>>` as quotations."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1(?=.*\S).*)*", re.MULTILINE)


class FencedDoctests(griffe.Extension):
    """Put each example of each docstring into a block of code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of what has been read."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """Fence what begins with `>>>` and ends at an empty line or at less indentation.

    >>> fenced("One line.\\n\\n>>> 1 + 1\\n2\\n").splitlines()
    ['One line.', '', '```pycon', '>>> 1 + 1', '2', '```']
    """
    return EXAMPLE.sub(r"\1```pycon\n\g<0>\n\1```", text)
