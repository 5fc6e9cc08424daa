"""Lines of text that are no rows, cells between blanks, and headers of another width."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

BLANKS = " "  # as a separator: any number of blanks and tabs
END = r"\r\n|\r|\n"


def below(text: str, lines: int) -> str:
    """Make the first lines blank, so that those below keep their numbers.

    >>> below("title\\nx,y\\n1,2\\n", 1)
    '\\nx,y\\n1,2\\n'
    """
    ends = [end.end() for end in islice(re.finditer(END, text), min(lines, len(text)))]
    if len(ends) < lines:
        return ""
    return "\n" * lines + text[ends[-1] if ends else 0 :]


def above(text: str, lines: int) -> str:
    """Leave out the last lines, without counting blank ones.

    >>> above("x,y\\n1,2\\n\\nTotal\\n\\n", 1)
    'x,y\\n1,2\\n\\n'
    """
    if not lines:
        return text
    starts = [line.start() for line in re.finditer(r"(?m)^.*\S.*$", text)]
    return text[: starts[-lines]] if lines < len(starts) else ""


def cells_of_blanks(text: str) -> str:
    """Put a tab between cells that blanks and tabs separate, but not within quotes.

    >>> cells_of_blanks('  year  "a b"\\n1950   2 \\n')
    'year\\t"a b"\\n1950\\t2\\n'
    """
    parts = re.split(f"({END})", text)
    return "".join(
        part if index % 2 else "\t".join(re.findall(r'"[^"]*"|\S+', part))
        for index, part in enumerate(parts)
    )


def quotes_at_edges(text: str, separator: str) -> str:
    """Leave out blanks between separators and quotes, as in 1, "a, b".

    >>> quotes_at_edges('x, "y" ,z\\n1, "a, b", "c"\\n', ",")
    'x,"y",z\\n1,"a, b","c"\\n'
    """
    mark = re.escape(separator)
    has_blank = ' "' in text or '" ' in text  # which is seen much faster than the pattern is
    at_edge = rf'(?m)(^|{mark}) +"|" +({mark}|$)'
    if separator in " \t" or not has_blank or not re.search(at_edge, text):
        return text
    return re.sub(rf'(?m)(^|{mark}) *("(?:[^"]|"")*") *', r"\1\2", text)


def may_be_blanks(widths: Sequence[int]) -> bool:
    """Whether blanks may separate rows that have so many cells then, the header first.

    The header may lack the name of the first column, as R writes it.

    >>> may_be_blanks([2, 2, 2]), may_be_blanks([2, 3, 3]), may_be_blanks([1, 2, 2])
    (True, True, False)
    """
    header, rows = widths[0] if widths else 0, set(widths[1:])
    return (header > 1 and rows <= {header}) or (header > 1 and rows == {header + 1})


def with_all_names(header: Sequence[str], width: int, columns: Sequence[Any]) -> list[str] | None:
    """Return names for all columns where a header is one short or one long; None if none fit.

    Rows may end in a separator that the header lacks, or the other way round. The first column
    may hold the names of rows, as R writes them: 1, 2, 3 and so on.

    Args:
        header: the names that there are.
        width: of the rows.
        columns: Arrow's, without the header.

    >>> with_all_names(["a", "b", ""], 2, [])
    ['a', 'b']
    """
    if width == len(header) - 1 and not header[-1]:
        return list(header[:-1])
    if width != len(header) + 1 or len(header) < 2:
        return None
    if all(not cell.strip() for cell in columns[-1].unique().to_pylist()):
        return [*header, ""]
    first = columns[0].to_pylist()
    are_numbered = all(cell == str(number) for number, cell in enumerate(first, start=1))
    return ["", *header] if are_numbered else None
