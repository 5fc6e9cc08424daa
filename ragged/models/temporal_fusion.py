"""What the three temporal fusion models have in common, and what tells a row's length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ragged.backend import check_frameworks
from ragged.checks import as_array
from ragged.errors import ShapeError
from ragged.lengths import Lengths
from ragged.models.base import Model, check_at_least, check_heads
from ragged.ops.masks import check_alignment
from ragged.protocol import Array, Backend


@dataclass(frozen=True)
class TemporalFusion(Model):
    """The arguments that all three share; see `TemporalFusionTransformer`."""

    past_features: int
    future_features: int
    hidden_size: int = 300
    hidden_continuous_size: int = 8
    num_layers: int = 2
    num_heads: int = 4
    dropout: float = 0.1
    causal: bool = True
    output_size: int = 7
    encoder_alignment: str = "right"
    seed: int | None = None

    default_loss: ClassVar[str] = "quantile"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "hidden_continuous_size")
        check_heads(self, "hidden_size")
        check_alignment(type(self).__name__, "encoder_alignment", self.encoder_alignment)

    @property
    def static_size(self) -> int:
        """How many static values a row has."""
        return 0

    def static_values(
        self, backend: Backend, lengths: Lengths, static: Array, like: Array
    ) -> Array | None:
        """A row's static values, `(batch, static_size)`; None if it has none."""
        return None


@dataclass(frozen=True)
class WithStatics(TemporalFusion):
    """The temporal fusion models that know a row's length and what else is the same all along."""

    static_features: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "static_features")

    @property
    def static_size(self) -> int:
        """How many static values a row has: its length, and the user's."""
        return 1 + self.static_features

    def scaled(self, length: Array) -> Array:
        """A row's length as the model reads it."""
        raise NotImplementedError

    def static_values(
        self, backend: Backend, lengths: Lengths, static: Array, like: Array
    ) -> Array:
        """The scaled length, and the user's values."""
        xp, model = backend.xp, type(self).__name__
        count = xp.astype(lengths.to(backend, like), like.dtype)
        length = self.scaled(count)[:, None]
        if static is None and self.static_features == 0:
            return length
        check_frameworks(model, backend, static=static)
        given = None if static is None else as_array(backend, model, "static", static, like)
        expected = (lengths.batch, self.static_features)
        if given is None or tuple(given.shape) != expected:
            got = "missing" if given is None else f"of shape {tuple(given.shape)}"
            wanted = f"(batch, static_features) = {expected}"
            remedy = "Give each row its static values, and set static_features to their number."
            raise ShapeError.of(model, "static", got, wanted, remedy)
        given = backend.promote_arrays(model, {"past": like, "static": given})["static"]
        return xp.concat([length, xp.astype(given, like.dtype)], axis=1)
