"""A line of the tables of transformations, and the constants that lines share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ragged.errors import RaggedError
from ragged_conformance.transformations.problems import Trial

Results = Mapping[str, Any]
DERIVATIVE, PROGRAM = "float64", "float32"  # the dtypes that derivatives and programs are tested in
LAYERS = ("LSTM*", "lstm*", "GRU*", "gru*", "RNN*")
SOME = ("LSTM", "EncoderDecoderLSTM")
# One problem an implementation, and a second cell.
WAYS = ("LSTM", "LSTM, no kernels", "lstm, projection", "GRU")
ATTENTION = ("AttentionLSTM", "TransformerLSTM", "*Temporal*", "XTFT")
MODELS = ("EncoderDecoderLSTM", *ATTENTION)
FUNCTIONS, FROZEN = ("lstm*", "gru*"), ("LSTM, frozen",)


@dataclass(frozen=True)
class Transformation:
    """One way in which a framework transforms a function or a module.

    Args:
        run: transforms a trial; gives by name what `comparison.CHECKS` compares.
        dtype: the pass that it belongs to.
        on: patterns of the problems that every run tries; the others are left to `--exhaustive`,
            since they take seconds each.
        without: patterns of the problems that have nothing for it to transform.
        refused: by pattern of a problem, the error by which it may refuse, and must.
    """

    run: Callable[[Trial], Results]
    dtype: str = DERIVATIVE
    on: tuple[str, ...] = ("*",)
    without: tuple[str, ...] = ()
    refused: Mapping[str, type[RaggedError]] = field(default_factory=dict)

    def is_tried(self, problem: str, exhaustive: bool) -> bool:
        """Whether a run tries a problem."""
        if _is_one(problem, self.without):
            return False
        return exhaustive or _is_one(problem, self.on)

    def refusal(self, problem: str) -> type[RaggedError] | None:
        """The error by which it refuses a problem."""
        errors = [error for name, error in self.refused.items() if fnmatchcase(problem, name)]
        return errors[0] if errors else None


def _is_one(problem: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(problem, pattern) for pattern in patterns)


def derivative(run: Callable[[Trial], Results], *on: str, **options: Any) -> Transformation:
    """A line that is tested in float64."""
    return Transformation(run, DERIVATIVE, on or ("*",), **options)


def program(run: Callable[[Trial], Results], *on: str, **options: Any) -> Transformation:
    """A line that is tested in float32."""
    return Transformation(run, PROGRAM, on or ("*",), **options)


def of_module(run: Callable[[Trial], Results], *on: str, **options: Any) -> Transformation:
    """A line that transforms modules, not functions."""
    without = (*FUNCTIONS, *options.pop("without", ()))
    return program(run, *on, without=without, **options)
