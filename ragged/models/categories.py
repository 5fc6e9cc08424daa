"""Features that are labels of categories: their numbers, and the sizes of their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragged.errors import OptionError
from ragged.protocol import Array, Backend

MAX_EMBEDDING_SIZE = 100


@dataclass(frozen=True)
class Variables:
    """Which of some features are numbers, and which are labels, each with a table of rows.

    A label is the number of a row. Row 0 is of everything that is no label: of one that training
    has not seen, of a fraction, of NaN.

    Args:
        numbers: the places of the features that are numbers.
        categories: the places of the others.
        tables: for each of those the rows of its table and their width.

    >>> variables = Variables.of((0, 3, 0), (2,))
    >>> variables.width, variables.order
    (4, (0, 2, 1))
    """

    numbers: tuple[int, ...]
    categories: tuple[int, ...] = ()
    tables: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, cardinalities: Sequence[int], sizes: Sequence[int]) -> Variables:
        """Tell features apart by their cardinalities, 0 of a number.

        Args:
            cardinalities: of each feature the rows of its table.
            sizes: of each category the width of a row.
        """
        rows = [count for count in cardinalities if count]
        return cls(
            tuple(place for place, count in enumerate(cardinalities) if not count),
            tuple(place for place, count in enumerate(cardinalities) if count),
            tuple(zip(rows, sizes, strict=True)),
        )

    @property
    def width(self) -> int:
        """How wide the features are where each label is replaced by its row."""
        return len(self.numbers) + sum(size for _, size in self.tables)

    @property
    def order(self) -> tuple[int, ...]:
        """The place of each feature where the numbers stand before the categories."""
        places = (*self.numbers, *self.categories)
        return tuple(sorted(range(len(places)), key=places.__getitem__))


def default_embedding_size(cardinality: int) -> int:
    """Return how wide a row of a table is, unless told otherwise: min(1.6 n^0.56, 100), rounded.

    >>> [default_embedding_size(count) for count in (2, 3, 8, 100, 10_000)]
    [2, 3, 5, 21, 100]

    Source: J. Howard and S. Gugger, Fastai: A Layered API for Deep Learning (2020), with the bound
    of pytorch-forecasting.
    """
    return min(round(1.6 * cardinality**0.56), MAX_EMBEDDING_SIZE)


def table_rows(backend: Backend, x: Array, count: int) -> Array:
    """Return the row of each label in a table, int32; 0 of what is none of 1 to `count` - 1.

    Args:
        backend: of the array.
        x: labels as floating numbers, any shape.
        count: rows of the table.
    """
    xp = backend.xp
    is_label = (x >= 1) & (x < count) & (x == xp.floor(x))
    return xp.astype(xp.where(is_label, x, xp.zeros_like(x)), xp.int32)


def check_labels_fit(
    backend: Backend, model: str, argument: str, x: Array, cardinalities: Sequence[int]
) -> None:
    """Refuse features of a dtype that rounds some of the labels.

    Raises:
        OptionError: such a dtype: bfloat16 holds the integers up to 256, float16 those up to 2048.
    """
    largest = max(cardinalities, default=0) - 1
    exact = int(2 / backend.xp.finfo(x.dtype).eps)
    if largest > exact:
        got = f"of dtype {x.dtype} with labels up to {largest}"
        expected = f"at most {exact}, which it holds exactly"
        remedy = "Compute in float32, or tell fewer labels apart."
        raise OptionError.of(model, argument, got, expected, remedy)
