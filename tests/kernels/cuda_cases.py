"""Layers with their outputs and gradients by the oracle, for whatever runs the CUDA kernels."""

import functools

import numpy as np
from ragged_conformance import oracle
from ragged_conformance.cases import normal
from ragged_conformance.tolerances import LAYER, MODEL, assert_close

from ragged.kernels.cuda.plans import GATES

LENGTHS, WIDTH, INPUTS = [3, 0, 9, 1, 3, 2, 0, 1], 10, 2  # one long row among short ones, ties
RESETS = [{0, 2}, set(), {1, 4, 5}, {0}, set(), {1}, set(), set()]  # steps of each row
LAYOUTS = ("padded", "time_major", "jagged", "packed")


class Case:
    """A layer's weights, inputs and gradients of its outputs, and the oracle's run of them."""

    def __init__(self, cell, hidden, *, reverse=False, resets=False, to_initial=False):
        self.cell, self.hidden, self.reverse = cell, hidden, reverse
        self.to_initial, self.resets = to_initial, np.zeros((len(LENGTHS), WIDTH), bool)
        for row, steps in enumerate(RESETS if resets else ()):
            self.resets[row, [*steps]] = True
            self.resets[row, LENGTHS[row] :] = True  # never read
        rows, height = (len(LENGTHS), hidden), GATES[cell] * hidden
        self.states = ("h", "c") if cell == "LSTM" else ("h",)
        shapes = {"weight_ih": (height, INPUTS), "weight_hh": (height, hidden)}
        shapes |= {"bias_ih": (height,), "bias_hh": (height,)}
        self.weights = {n: normal(*s, seed=k) / 4 for k, (n, s) in enumerate(shapes.items())}
        self.x = normal(len(LENGTHS), WIDTH, INPUTS)
        self.state = [normal(*rows, seed=k) for k in range(len(self.states))]
        self.dy = normal(len(LENGTHS), WIDTH, hidden)
        self.dstate = [normal(*rows, seed=k + 2) for k in range(len(self.states))]

    def run(self, **arrays):
        """Run every row alone, a step at a time: y and the states."""
        advance, _ = oracle.CELLS[self.cell]
        weights = {name: arrays[name] for name in self.weights}
        y = np.zeros((*arrays["x"].shape[:2], self.hidden), np.result_type(*arrays.values()))
        final = [arrays[name].astype(y.dtype) for name in self.states]
        for row, length in enumerate(LENGTHS):
            start = now = tuple(arrays[name][row] for name in self.states)
            for step in range(length)[:: -1 if self.reverse else 1]:
                border = step + self.reverse
                if border < length and self.resets[row, border]:
                    now = start if self.to_initial else tuple(0 * part for part in start)
                now = advance(weights, arrays["x"][row, step], *now)
                y[row, step] = now[0]
            for part, value in zip(final, now, strict=True):
                part[row] = value
        return [y, *final]

    @property
    def arrays(self):
        return {**self.weights, "x": self.x, **dict(zip(self.states, self.state, strict=True))}

    def loss(self, **arrays):
        valid = oracle.padding_mask(LENGTHS, WIDTH)[..., None]
        return sum(
            (part * d).sum()
            for part, d in zip(self.run(**arrays), [valid * self.dy, *self.dstate], strict=True)
        )


class Places:
    """Where the tokens of a layout stand, written down row by row."""

    def __init__(self, layout):
        self.layout, self.order = layout, np.arange(len(LENGTHS))
        if layout == "packed":
            self.order = np.argsort(-np.array(LENGTHS), kind="stable")
        self.lengths = np.array(LENGTHS)[self.order]
        tokens = [(row, step) for row, n in enumerate(self.lengths) for step in range(n)]
        if layout == "packed":
            tokens.sort(key=lambda token: token[::-1])
        is_dense = layout in ("padded", "time_major")
        self.count = len(LENGTHS) * WIDTH if is_dense else len(tokens) + 3
        self.rows, self.steps = np.array(tokens).T
        of_row, of_step = (WIDTH, 1) if layout == "padded" else (1, len(LENGTHS))
        self.at = of_row * self.rows + of_step * self.steps if is_dense else np.arange(len(tokens))

    def spread(self, padded):
        """Lay tokens as the layout has them, NaN between."""
        shape = (self.count, *padded.shape[2:])
        values = np.full(shape, np.nan) if padded.dtype != bool else np.ones(shape, bool)
        values[self.at] = padded[self.order][self.rows, self.steps]
        return values

    def collect(self, values):
        """Lay tokens as a padded batch; what stands between them has to be 0."""
        assert not np.delete(values, self.at, axis=0).any()
        padded = np.zeros((len(LENGTHS), WIDTH, *values.shape[1:]))
        padded[self.order[self.rows], self.steps] = values[self.at]
        return padded

    def sort(self, rows):
        return [part[self.order] for part in rows]

    def unsort(self, rows):
        return [part[np.argsort(self.order)] for part in rows]


def run(layer, case, layout="padded", **options):
    """Run both passes with NaN wherever there is no token: outputs, and gradients by name."""
    places = Places(layout)
    y, *final = layer.forward(
        case.weights, places.spread(case.x), places.lengths, places.sort(case.state),
        layout=layout, width=WIDTH, reverse=case.reverse, to_initial=case.to_initial,
        resets=places.spread(case.resets) if case.resets.any() else None, **options,
    )  # fmt: skip
    gradients = layer.backward(places.spread(case.dy), *places.sort(case.dstate))
    names = ("x", *case.weights, *case.states)
    found = dict(zip(names, gradients, strict=True))
    found["x"] = places.collect(found["x"])
    found |= {name: places.unsort([found[name]])[0] for name in case.states}
    return [places.collect(y), *places.unsort(final)], found


def check(layer, case, expected, gradients, layout="padded", dtype="float32", **options):
    found, found_gradients = run(layer, case, layout, **options)
    for what, value, right in zip(("y", *case.states), found, expected, strict=True):
        assert_close(value, right, dtype, LAYER, what)
    for name, right in gradients.items():
        assert_close(found_gradients[name], right, dtype, MODEL, f"gradient of {name}")


@functools.cache
def solved(cell, hidden=5, **options):
    """A case with the oracle's outputs and gradients."""
    case = Case(cell, hidden, **options)
    return case, case.run(**case.arrays), oracle.gradient(case.loss, case.arrays)
