"""Blocks that the models share, on torch.

Blocks with `num_copies` are independent copies, each with its own parameters: their parameters and
their input have one more axis, the first.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ragged.backend import load_backend
from ragged.models.categories import Variables, table_rows
from ragged.ops.interpolation import interpolation_matrix
from ragged.recurrent import init
from ragged_torch.arrays import asarray, name
from ragged_torch.gated_kernels import Kinds, Parts, run_gate, run_grn, submodules, takes_kernels
from ragged_torch.parameters import create_parameter, spread, stretch_matrix
from ragged_torch.tokens import Tokens
from ragged_torch.transforms import FakeTensor, has_tangents, in_memory


class Dropout(nn.Dropout):
    """Torch's dropout in a quarter of the time on a CPU, where torch draws for each element.

    One draw of 64 bits serves four elements; the rate is exact to 2**-17. For compilers it is an
    operator, since their version of torch's dropout draws for each element as well. Torch's own
    runs at rates that 16 bits do not distinguish from 0 or 1, and under transformations:
    `torch.vmap` decides whether rows share their draws.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements in training and scale the others up."""
        dropped = round(self.p * 2**16)
        if not (x.is_cpu and x.ndim and self.training) or dropped in (0, 2**16):
            return super().forward(x)
        compiles = torch.compiler.is_compiling()
        if not compiles and (isinstance(x, FakeTensor) or not in_memory(x)):
            return super().forward(x)
        *axes, size = x.shape
        words = torch.empty((*axes, -(-size // 4)), dtype=torch.int64, device=x.device)
        (torch.ops.ragged.draw_into if compiles else _draw_into)(words)
        bits = words.view(torch.int16) if size % 4 == 0 else words.view(torch.int16)[..., :size]
        kept = torch.ge(bits, dropped - 2**15, out=torch.empty_like(x))  # at once in x's dtype
        return x * kept.div_(1 - self.p)


def _draw_into(words: Tensor) -> None:
    words.random_(-(2**63), None)


# It writes into its argument: a compiler would merge two equal calls of a pure operator.
_register = torch.library.custom_op("ragged::draw_into", mutates_args=("words",))
_register(_draw_into).register_fake(lambda words: None)


class Linear(nn.Module):
    """`x @ weight.T + bias` with `weight (outputs, inputs)`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        initializer: init.Initializer = init.fan_in_uniform,
        bias: bool = True,
        num_copies: int | None = None,
        rng: np.random.Generator,
    ) -> None:
        super().__init__()
        values = init.linear_values(
            rng, inputs, outputs, initializer=initializer, bias=bias, num_copies=num_copies
        )
        self.weight = create_parameter(values["weight"])
        self.bias = create_parameter(values["bias"]) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., inputs)` to `(..., outputs)`."""
        if self.weight.ndim == 2:
            return nn.functional.linear(x, self.weight, self.bias)
        flat = x.flatten(1, -2)
        if self.bias is None:
            y = flat @ self.weight.mT
        else:
            y = torch.baddbmm(self.bias[:, None], flat, self.weight.mT)
        return y if x.ndim == 3 else y.unflatten(1, x.shape[1:-1])


class LayerNorm(nn.Module):
    """`(x - mean) / sqrt(variance + 1e-5) * weight + bias` over the features."""

    def __init__(self, size: int, *, num_copies: int | None = None) -> None:
        super().__init__()
        shape = (size,) if num_copies is None else (num_copies, size)
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(..., size)`."""
        if has_tangents():  # torch's own has a wrong derivative of its forward mode
            centred = x - x.mean(-1, keepdim=True)
            y = centred * (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        elif self.weight.ndim == 1:
            return nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias)
        else:
            y = nn.functional.layer_norm(x, self.weight.shape[1:])
        return torch.addcmul(spread(self.bias, y), y, spread(self.weight, y))


class MLP(nn.Module):
    """Linear, relu, dropout, Linear."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, dropout: float, *, rng: np.random.Generator
    ) -> None:
        super().__init__()
        self.hidden = Linear(inputs, hidden, rng=rng)
        self.output = Linear(hidden, outputs, rng=rng)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., inputs)` to `(..., outputs)`."""
        return self.output(self.dropout(torch.relu(self.hidden(x))))


class GLU(nn.Module):
    """Gated linear unit: dropout, then `a * sigmoid(b)` with `[a, b] = Linear(x)`.

    Source: Y. N. Dauphin and others, Language Modeling with Gated Convolutional Networks (2017).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dropout: float = 0.0,
        *,
        num_copies: int | None = None,
        rng: np.random.Generator,
    ) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.linear = Linear(
            inputs, 2 * outputs, initializer=init.xavier_uniform, num_copies=num_copies, rng=rng
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., inputs)` to `(..., outputs)`."""
        halves = self.linear(self.dropout(x))
        if has_tangents():  # torch's own has no derivative of its forward mode
            value, gate = halves.chunk(2, -1)
            return value * gate.sigmoid()
        return nn.functional.glu(halves)


class AddNorm(nn.Module):
    """`LayerNorm(x + y)`; trainable: y is scaled by `2 * sigmoid(scale)`, at first by 1."""

    def __init__(self, size: int, *, trainable: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(size)) if trainable else None
        self.norm = LayerNorm(size)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add and normalise `(..., size)`."""
        y = y if self.scale is None else y * 2 * torch.sigmoid(self.scale)
        return self.norm(x + y)


class GateAddNorm(nn.Module):
    """`AddNorm(GLU(x), residual)`."""

    def __init__(self, size: int, dropout: float = 0.0, *, rng: np.random.Generator) -> None:
        super().__init__()
        self.gate = GLU(size, size, dropout, rng=rng)
        self.add_norm = AddNorm(size)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Gate x and add it to the residual, both `(..., size)`."""
        if x.shape == residual.shape and takes_kernels(parts := self.parts, x, residual):
            return run_gate(parts, x, residual)
        return self.add_norm(self.gate(x), residual)

    @property
    def parts(self) -> Parts:
        """The modules whose work kernels do."""
        gate, add_norm = submodules(self, "gate", "add_norm")
        dropout, linear = submodules(gate, "dropout", "linear")
        own = self, gate, dropout, linear, add_norm, *submodules(add_norm, "norm")
        return Parts.of(own, (GateAddNorm, GLU, Dropout, Linear, AddNorm, LayerNorm), dropout)


class Interpolation(nn.Module):
    """Stretch the features by linear interpolation, scale them by `2 * sigmoid(scale)`, norm."""

    def __init__(self, inputs: int, outputs: int, *, num_copies: int | None = None) -> None:
        super().__init__()
        shape = (outputs,) if num_copies is None else (num_copies, outputs)
        # No buffer, which casting the module to float32 and back would round.
        self.doubled = asarray(2 * interpolation_matrix(inputs, outputs))
        self.scale = nn.Parameter(torch.zeros(shape))
        self.norm = LayerNorm(outputs, num_copies=num_copies)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        if self.scale.is_cuda:
            self.doubled = self.doubled.to(self.scale.device)
        return self

    def stretch(self, like: Tensor) -> Tensor:
        """Give the matrix that stretches and scales, `(inputs, outputs)`, of each copy."""
        return stretch_matrix(self.scale, self.doubled.to(like))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., inputs)` to `(..., outputs)`."""
        matrix = self.stretch(x)
        if matrix.ndim == 2:
            return self.norm(x @ matrix)
        return self.norm((x.flatten(1, -2) @ matrix).unflatten(1, x.shape[1:-1]))


class GRN(nn.Module):
    """Gated residual network.

        y      = Linear(elu(Linear(x) + Linear(context)))
        output = LayerNorm(GLU(y) + residual(x))

    The residual is x itself, or a Linear of it where the sizes differ, or its interpolation.

    Source: B. Lim and others, Temporal Fusion Transformers (2021), equations 2 to 5.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        dropout: float = 0.0,
        *,
        context_size: int | None = None,
        interpolate: bool = False,
        num_copies: int | None = None,
        rng: np.random.Generator,
    ) -> None:
        super().__init__()
        self.num_copies = num_copies
        self.hidden = Linear(
            inputs, hidden, initializer=init.he_normal, num_copies=num_copies, rng=rng
        )
        if context_size is not None:
            xavier = init.xavier_uniform
            self.context = Linear(context_size, hidden, initializer=xavier, bias=False, rng=rng)
        self.output = Linear(
            hidden, outputs, initializer=init.he_normal, num_copies=num_copies, rng=rng
        )
        self.gate = GLU(outputs, outputs, dropout, num_copies=num_copies, rng=rng)
        stretch: nn.Module | None = None
        if inputs != outputs and interpolate:
            stretch = Interpolation(inputs, outputs, num_copies=num_copies)
        elif inputs != outputs:
            stretch = Linear(inputs, outputs, num_copies=num_copies, rng=rng)
        self.residual = stretch
        self.norm = LayerNorm(outputs, num_copies=num_copies)

    def forward(
        self, x: Tensor, context: Tensor | None = None, tokens: Tokens | None = None
    ) -> Tensor:
        """Map tokens, `(..., inputs)`, to outputs, with a context `(batch, context_size)`."""
        added = self.added(context, tokens)
        if self.num_copies is None and takes_kernels(parts := self.parts, x, added):
            return run_grn(parts, x, added)
        hidden = self.hidden(x)
        if added is not None:
            hidden = hidden + added
        gated = self.gate(self.output(nn.functional.elu(hidden)))
        return self.norm(gated + (x if self.residual is None else self.residual(x)))

    def added(self, context: Tensor | None, tokens: Tokens | None) -> Tensor | None:
        """Give each token what its row's context adds to the hidden units."""
        if context is None or tokens is None:
            return None
        return tokens.spread(self.context(context))

    @property
    def is_stretched(self) -> bool:
        """Whether the residual is the interpolation of x."""
        return isinstance(self._modules.get("residual"), Interpolation)

    @property
    def parts(self) -> Parts:
        """The modules whose work kernels do; Linears of context and residual run by themselves."""
        names = "hidden", "output", "gate", "norm", "residual"
        hidden, output, gate, norm, residual = submodules(self, *names)
        dropout, linear = submodules(gate, "dropout", "linear")
        own, kinds = (self, hidden, output, gate, dropout, linear), OF_GRN
        if isinstance(residual, Interpolation):
            own, kinds = (*own, residual, *submodules(residual, "norm")), OF_STRETCHED_GRN
        return Parts.of((*own, norm), kinds, dropout)


OF_GRN: Kinds = (GRN, Linear, Linear, GLU, Dropout, Linear, LayerNorm)
OF_STRETCHED_GRN: Kinds = (*OF_GRN[:-1], Interpolation, LayerNorm, LayerNorm)


class Embedding(nn.Module):
    """Learned rows `weight (rows, size)`: of each label its own, and row 0 of what is no label."""

    def __init__(self, rows: int, size: int, *, rng: np.random.Generator) -> None:
        super().__init__()
        self.weight = create_parameter(init.embedding_values(rng, rows, size))

    def forward(self, x: Tensor) -> Tensor:
        """Map labels `(...)` to rows `(..., size)`; half precision sums its gradient in float32."""
        rows, weight = table_rows(load_backend(name), x, len(self.weight)), self.weight
        wide = weight.float() if weight.dtype.itemsize < 4 else weight
        return nn.functional.embedding(rows, wide).to(weight.dtype)


class Embeddings(nn.ModuleList):
    """A table of embeddings for each category among some features."""

    def __init__(self, variables: Variables, *, rng: np.random.Generator) -> None:
        super().__init__(Embedding(rows, size, rng=rng) for rows, size in variables.tables)

    def forward(self, x: Tensor, variables: Variables) -> Tensor:
        """Map `(..., features)`, the first of those or all, to numbers, then embedded labels."""
        if not variables.categories:
            return x
        columns = x.unbind(-1)
        numbers = [columns[place].unsqueeze(-1) for place in variables.numbers]
        tables = zip(self, variables.categories, strict=False)
        return torch.cat([*numbers, *(table(columns[place]) for table, place in tables)], -1)
