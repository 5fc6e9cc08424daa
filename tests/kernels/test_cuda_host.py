"""The CUDA kernels against the oracle, run by threads of the host that play a GPU.

They prove what the kernels compute, and neither that a GPU runs them nor how fast.
"""

import functools
import subprocess

import numpy as np
import pytest
from ragged_conformance import oracle
from ragged_conformance.cases import normal
from ragged_conformance.tolerances import LAYER, MODEL, assert_close

from ragged import kernels
from ragged.kernels.cuda import plans
from ragged.kernels.cuda.plans import GATES
from tests.kernels.cuda_host import HOPPER, SOURCE, HostLayer, compile_plan

pytestmark = pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")

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


@pytest.fixture(scope="module")
def layer_of(tmp_path_factory):
    """Compile a layer, cut for a GPU as the plans say or as `changed` says, once for all tests."""

    @functools.cache
    def make(cell, hidden=5, stored="float32", **changed):
        plan = plans.make_plan(cell, "Forward", hidden, gpu=HOPPER, dtype=stored)
        if stored == "bfloat16":
            stored = pytest.importorskip("ml_dtypes").bfloat16
        return HostLayer(plan._replace(**changed), tmp_path_factory.mktemp(cell), stored=stored)

    return make


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cell", GATES)
def test_outputs_and_gradients_are_the_oracles(layer_of, cell, layout, reverse):
    check(layer_of(cell), *solved(cell, reverse=reverse), layout)


@pytest.mark.parametrize("to_initial", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_resets_start_the_state_anew(layer_of, cell, reverse, to_initial):
    case = solved(cell, reverse=reverse, resets=True, to_initial=to_initial)
    check(layer_of(cell), *case, "packed")


@pytest.mark.parametrize("clusters", [1, 3, 20])
def test_how_rows_are_dealt_to_clusters_changes_nothing(layer_of, clusters):
    layer, (case, *_) = layer_of("LSTM"), solved("LSTM")
    found, gradients = run(layer, case, clusters=clusters)
    again, others = run(layer, case, clusters=2)
    for a, b in zip([*found, *gradients.values()], [*again, *others.values()], strict=True):
        np.testing.assert_array_equal(a, b)


def test_blocks_of_a_cluster_share_units_and_weights_may_lie_in_shared_memory(layer_of):
    cut = {"padded": 32, "cluster": 2, "lanes": 4, "group": 2, "rows": 2, "in_shared": 1}
    case = Case("LSTM", 20)
    y, *gradients = run(layer_of("LSTM", 20, **cut), case)
    for value, right in zip(y, case.run(**case.arrays), strict=True):
        assert_close(value, right, "float32")
    along = {name: np.sign(normal(*a.shape, seed=9)) for name, a in case.arrays.items()}
    slopes = oracle.slopes(case.loss, case.arrays, along)
    for name, slope in slopes.items():
        assert_close((gradients[0][name] * along[name]).sum(), slope, "float32", MODEL, name)


@pytest.mark.parametrize(("dtype", "cell"), [("bfloat16", "GRU"), ("float16", "LSTM")])
def test_arrays_may_be_stored_in_half_precision(layer_of, dtype, cell):
    case, expected, gradients = solved(cell)
    check(layer_of(cell, stored=dtype), case, expected, gradients, dtype=dtype)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]])
def test_rows_of_length_0_keep_their_state_and_hand_its_gradient_back(layer_of, lengths):
    layer, (case, *_) = layer_of("LSTM"), solved("LSTM")
    h0, c0, dh, dc = (normal(len(lengths), 5, seed=k) for k in range(4))
    x = np.full((4 * len(lengths), INPUTS), np.nan)
    y, h, c = layer.forward(case.weights, x, lengths, (h0, c0), width=4)
    *of_inputs, dh0, dc0 = layer.backward(np.full_like(y, np.nan), dh, dc)
    for found, right in zip((h, c, dh0, dc0), (h0, c0, dh, dc), strict=True):
        np.testing.assert_array_equal(found, right)
    assert not any(array.any() for array in (y, *of_inputs))


def test_a_row_that_is_not_finite_leaves_the_others_alone(layer_of):
    layer, (case, *_) = layer_of("GRU"), solved("GRU")
    right, _ = run(layer, case)
    other = Case("GRU", 5)
    other.x[2, 3] = np.nan
    found, _ = run(layer, other)
    for a, b in zip(found, right, strict=True):
        np.testing.assert_array_equal(np.delete(a, 2, axis=0), np.delete(b, 2, axis=0))
    assert np.isnan(found[0][2, 3:9]).all()


def test_sanitizers_find_no_race(tmp_path):
    cut = {"padded": 32, "cluster": 2, "lanes": 4, "group": 1, "rows": 2, "in_shared": 1}
    plan = plans.make_plan("LSTM", "Forward", 20, gpu=HOPPER)._replace(**cut)
    assert max(plan._replace(direction=each).shared for each in plans.PASSES) <= 1 << 16
    flags = ("-O1", "-fsanitize=thread")
    try:
        compile_plan(plan, tmp_path / "nothing", *flags, source=SOURCE.with_name("nothing.cpp"))
    except AssertionError:
        pytest.skip("the compiler has no sanitizer of threads")
    made = compile_plan(plan, tmp_path / "races", *flags, source=SOURCE.with_name("cuda_races.cpp"))
    done = subprocess.run([made], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
