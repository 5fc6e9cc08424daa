"""Invertible transforms of a column, learned on training steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.polynomial import Polynomial

from ragged.checks import as_size
from ragged.errors import DataError, OptionError


class Transform(ABC):
    """One step in the chain of a column.

    A subclass is a frozen dataclass. Its fields are its constants: those left at None are learned
    by `fit`, those given are kept, and all of them are written into checkpoints as JSON.

    Example:
        >>> @dataclass(frozen=True)
        ... class Root(Transform):
        ...     formula: ClassVar[str] = "sqrt(x)"
        ...
        ...     def transform(self, values, driver=None):
        ...         return np.sqrt(values)
        ...
        ...     def inverse(self, values, driver=None, last=np.nan):
        ...         return values**2
        >>> Root().inverse(Root().transform(np.array([4.0]))).tolist()
        [4.0]
    """

    needs_last: ClassVar[bool] = False  # whether `inverse` starts from the end of the context
    formula: ClassVar[str] = "as its class says"  # of a value x, for programs without ragged

    @property
    def reads(self) -> str | None:
        """The other column that it needs; none by default."""
        return None

    def fit(self, values: np.ndarray, driver: np.ndarray | None = None) -> Transform:
        """Return the transform with its constants learned; unchanged by default.

        Args:
            values: `(n,)` float64, at least one, the known training steps.
            driver: `(n,)` the column that it `reads`, or None.
        """
        return self

    @abstractmethod
    def transform(self, values: np.ndarray, driver: np.ndarray | None = None) -> np.ndarray:
        """Transform the steps of an event; NaN, unknown, stays NaN.

        Args:
            values: `(steps,)` float64, from the first step of the event on.
            driver: `(steps,)` the column that it `reads`, or None.

        Raises:
            DataError: a value that it is not defined for.
        """

    @abstractmethod
    def inverse(
        self, values: np.ndarray, driver: np.ndarray | None = None, last: float = np.nan
    ) -> np.ndarray:
        """Undo `transform` over a horizon.

        Args:
            values: `(steps, ...)`, transformed.
            driver: `(steps,)` the column that it `reads`, or None.
            last: the untransformed value before the first step.
        """


@dataclass(frozen=True)
class Affine(Transform, ABC):
    """Shift by `center`, then divide by `scale`.

    Args:
        center: becomes 0.
        scale: becomes 1; above 0.

    Raises:
        OptionError: a constant that is not finite, or a scale of 0 or less.
    """

    formula: ClassVar[str] = "(x - center) / scale"

    center: float | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        for argument, value in (("center", self.center), ("scale", self.scale)):
            lower = 0.0 if argument == "scale" else -np.inf
            if value is not None and not lower < value < np.inf:
                expected = "above 0" if argument == "scale" else "a finite number"
                name = type(self).__name__
                raise OptionError.of(name, argument, value, expected, "Or leave it out.")

    @abstractmethod
    def learn(self, values: np.ndarray) -> tuple[float, float]:
        """Return the centre and the spread of training values that differ."""

    def fit(self, values: np.ndarray, driver: np.ndarray | None = None) -> Transform:
        """Learn the constants left at None; values that never change get scale 1.

        Raises:
            DataError: values whose spread is beyond float64.
        """
        is_constant = bool(values.min() == values.max())
        with np.errstate(over="ignore"):
            learned = (float(values[0]), 1.0) if is_constant else self.learn(values)
        center = learned[0] if self.center is None else self.center
        scale = learned[1] if self.scale is None else self.scale
        if not (np.isfinite([center, scale]).all() and scale > 0):
            size, other = ("large", "larger") if scale else ("small", "smaller")
            got, expected = f"as {size} as {np.abs(values).max():.3g}", "a spread within float64"
            remedy = f"Give the column in {other} units, or transform it by Log before."
            raise DataError.of(f"{type(self).__name__}.fit", "values", got, expected, remedy)
        return replace(self, center=center, scale=scale)

    def transform(self, values: np.ndarray, driver: np.ndarray | None = None) -> np.ndarray:
        """Shift and divide."""
        center, scale = self._constants
        return (values - center) / scale

    def inverse(
        self, values: np.ndarray, driver: np.ndarray | None = None, last: float = np.nan
    ) -> np.ndarray:
        """Multiply and shift back."""
        center, scale = self._constants
        return values * scale + center

    @property
    def _constants(self) -> tuple[float, float]:
        assert self.center is not None
        assert self.scale is not None
        return self.center, self.scale


@dataclass(frozen=True)
class StandardScaler(Affine):
    """Mean 0 and standard deviation 1 (of the population) over the training steps.

    >>> StandardScaler().fit(np.array([1.0, 3.0]))
    StandardScaler(center=2.0, scale=1.0)
    """

    def learn(self, values: np.ndarray) -> tuple[float, float]:
        """Return mean and standard deviation."""
        return float(values.mean()), float(values.std())


@dataclass(frozen=True)
class RobustScaler(Affine):
    """Median 0 and interquartile range 1, robust to outliers.

    Where more than half of the steps are equal the range is 0, and the standard deviation is taken.

    >>> RobustScaler().fit(np.array([1.0, 2.0, 3.0, 4.0, 1e6]))
    RobustScaler(center=3.0, scale=2.0)
    """

    def learn(self, values: np.ndarray) -> tuple[float, float]:
        """Return median and interquartile range."""
        low, median, high = np.percentile(values, (25, 50, 75))
        return float(median), float(high - low) or float(values.std())


@dataclass(frozen=True)
class SeenLabels(Transform):
    """The numbers of labels as they are, and 0, the unknown one, of labels that training lacks.

    Args:
        seen: the numbers of the labels on training steps.

    >>> SeenLabels().fit(np.array([1.0, 3.0, 1.0])).transform(np.array([1.0, 2.0, np.nan]))
    array([ 1.,  0., nan])
    """

    formula: ClassVar[str] = "x if it is among seen, else 0"

    seen: Sequence[int] | None = None

    def fit(self, values: np.ndarray, driver: np.ndarray | None = None) -> Transform:
        """Learn which labels there are."""
        return replace(self, seen=[int(value) for value in np.unique(values) if value > 0])

    def transform(self, values: np.ndarray, driver: np.ndarray | None = None) -> np.ndarray:
        """Replace labels that were not seen."""
        is_kept = np.isnan(values) | np.isin(values, np.array(self.seen, dtype=np.float64))
        return np.where(is_kept, values, 0.0)

    def inverse(
        self, values: np.ndarray, driver: np.ndarray | None = None, last: float = np.nan
    ) -> np.ndarray:
        """Return the numbers as they are."""
        return values


@dataclass(frozen=True)
class Log(Transform):
    """The natural logarithm, of values above 0.

    >>> Log().inverse(Log().transform(np.array([1.0, 20.0])))
    array([ 1., 20.])
    """

    formula: ClassVar[str] = "ln(x)"

    def transform(self, values: np.ndarray, driver: np.ndarray | None = None) -> np.ndarray:
        """Take the logarithm; a value of 0 or less is refused."""
        wrong = values <= 0
        if wrong.any():
            step = int(np.argmax(wrong))
            got = f"{values[step]:g} at step {step}"
            remedy = "Correct the value, or leave Log out of the column's transforms."
            raise DataError.of("Log.transform", "values", got, "above 0", remedy)
        return np.log(values)

    def inverse(
        self, values: np.ndarray, driver: np.ndarray | None = None, last: float = np.nan
    ) -> np.ndarray:
        """Exponentiate."""
        return np.exp(values)


@dataclass(frozen=True)
class Difference(Transform):
    """The change since the step before; 0 at the first step of an event.

    The inverse adds the changes up from the last value of the context. A quantile of the changes
    becomes the sum of such quantiles: the order of quantiles is kept, their coverage is not.

    >>> Difference().transform(np.array([1.0, 4.0, 6.0]))
    array([0., 3., 2.])
    >>> Difference().inverse(np.array([3.0, 2.0]), last=1.0)
    array([4., 6.])
    """

    needs_last: ClassVar[bool] = True
    formula: ClassVar[str] = "x - (x of the step before), 0 at an event's first step"

    def transform(self, values: np.ndarray, driver: np.ndarray | None = None) -> np.ndarray:
        """Subtract the step before."""
        return np.diff(values, prepend=values[:1])

    def inverse(
        self, values: np.ndarray, driver: np.ndarray | None = None, last: float = np.nan
    ) -> np.ndarray:
        """Add up from `last`."""
        return last + np.cumsum(values, axis=0)


@dataclass(frozen=True)
class CalibrationCurve(Transform):
    """The residual of a polynomial of another, known column.

    Args:
        driver: the known column, in the units of the source.
        degree: of the polynomial, 0 or more.
        coefficients: lowest power first, of the driver mapped from `domain` to -1..1.
        domain: the range of the driver over the training steps. A driver that was never seen
            counts as its middle.

    Raises:
        OptionError: a negative degree, coefficients without their domain, or not finite ones.

    >>> curve = CalibrationCurve("flow", degree=1)
    >>> flow, load = np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])
    >>> curve.fit(load, flow).transform(load + 5.0, flow).round(9)
    array([5., 5., 5.])
    """

    formula: ClassVar[str] = (
        "x - sum of coefficients[k] * u**k, u = driver mapped from domain to -1..1"
    )

    driver: str
    degree: int = 2
    coefficients: tuple[float, ...] | None = None
    domain: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        as_size("CalibrationCurve", "degree", self.degree, maximum=None)
        if self.coefficients is None and self.domain is None:
            return
        object.__setattr__(self, "coefficients", tuple(self.coefficients or ()))
        object.__setattr__(self, "domain", tuple(self.domain or ()))
        constants = (*(self.coefficients or ()), *(self.domain or ()))
        is_complete = len(constants) == self.degree + 3 and np.isfinite(constants).all()
        if not is_complete or constants[-2] >= constants[-1]:
            expected = f"{self.degree + 1} finite numbers, with their domain"
            remedy = "Or leave both out."
            raise OptionError.of("CalibrationCurve", "coefficients", constants, expected, remedy)

    @property
    def reads(self) -> str | None:
        """The driver."""
        return self.driver

    def fit(self, values: np.ndarray, driver: np.ndarray | None = None) -> Transform:
        """Fit the polynomial by least squares.

        Raises:
            DataError: a driver with too few different values for the degree.
        """
        if self.coefficients is not None:
            return self
        assert driver is not None
        num_distinct = len(np.unique(driver))
        if num_distinct <= max(1, self.degree):
            got = f"'{self.driver}' with {num_distinct} different values over the training steps"
            remedy = "Lower the degree, or take another driver."
            expected = f"more than {max(1, self.degree)}"
            raise DataError.of("CalibrationCurve", "driver", got, expected, remedy)
        polynomial = Polynomial.fit(driver, values, self.degree)
        low, high = map(float, polynomial.domain)
        return replace(self, coefficients=tuple(map(float, polynomial.coef)), domain=(low, high))

    def transform(self, values: np.ndarray, driver: np.ndarray | None = None) -> np.ndarray:
        """Subtract the curve."""
        return values - self._curve(driver)

    def inverse(
        self, values: np.ndarray, driver: np.ndarray | None = None, last: float = np.nan
    ) -> np.ndarray:
        """Add the curve."""
        curve = self._curve(driver)
        return values + curve.reshape(-1, *(1,) * (values.ndim - 1))

    def _curve(self, driver: np.ndarray | None) -> np.ndarray:
        assert driver is not None
        assert self.coefficients is not None
        assert self.domain is not None
        filled = np.where(np.isnan(driver), sum(self.domain) / 2, driver)
        return np.asarray(Polynomial(self.coefficients, domain=self.domain)(filled))
