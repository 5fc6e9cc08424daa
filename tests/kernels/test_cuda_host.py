"""The CUDA kernels against the oracle, run by threads of the host that play a GPU.

They prove what the kernels compute, and neither that a GPU runs them nor how fast.
"""

import subprocess

import array_api_compat.numpy as xp
import numpy as np
import pytest
from ragged_conformance import oracle
from ragged_conformance.cases import normal
from ragged_conformance.tolerances import MODEL, assert_close

from ragged import kernels
from ragged.errors import OptionError, ShapeError
from ragged.kernels.cuda import plans
from ragged.kernels.cuda.layer import bound_lengths, make_tables
from ragged.kernels.cuda.plans import GATES
from tests.kernels.cuda_cases import INPUTS, LAYOUTS, Case, check, run, solved
from tests.kernels.cuda_host import HOPPER, SOURCE, HostLayer, compile_plan

pytestmark = pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")


def layer_of(cell, hidden=5, stored="float32", **changed):
    """A layer cut for a GPU as the plans say, or as `changed` says."""
    plan = plans.make_plan(cell, "Forward", hidden, gpu=HOPPER, dtype=stored)
    if stored == "bfloat16":
        stored = pytest.importorskip("ml_dtypes").bfloat16
    return HostLayer(plan._replace(**changed), stored=stored)


@pytest.mark.parametrize(("layout", "reverse"), [*zip(LAYOUTS, [False, True] * 2, strict=True)])
@pytest.mark.parametrize("cell", GATES)
def test_outputs_and_gradients_are_the_oracles(cell, layout, reverse):
    check(layer_of(cell), *solved(cell, reverse=reverse), layout)


@pytest.mark.parametrize("to_initial", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_resets_start_the_state_anew(cell, reverse, to_initial):
    case = solved(cell, reverse=reverse, resets=True, to_initial=to_initial)
    check(layer_of(cell), *case, "packed")


@pytest.mark.parametrize("clusters", [1, 3, 20])
def test_how_rows_are_dealt_to_clusters_changes_nothing(clusters):
    layer, (case, *_) = layer_of("LSTM"), solved("LSTM")
    found, gradients = run(layer, case, clusters=clusters)
    again, others = run(layer, case, clusters=2)
    for a, b in zip([*found, *gradients.values()], [*again, *others.values()], strict=True):
        np.testing.assert_array_equal(a, b)


def test_blocks_of_a_cluster_share_units_and_weights_may_lie_in_shared_memory():
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
def test_arrays_may_be_stored_in_half_precision(dtype, cell):
    case, expected, gradients = solved(cell)
    check(layer_of(cell, stored=dtype), case, expected, gradients, dtype=dtype)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]])
def test_rows_of_length_0_keep_their_state_and_hand_its_gradient_back(lengths):
    layer, (case, *_) = layer_of("LSTM"), solved("LSTM")
    h0, c0, dh, dc = (normal(len(lengths), 5, seed=k) for k in range(4))
    x = np.full((4 * len(lengths), INPUTS), np.nan)
    y, h, c = layer.forward(case.weights, x, lengths, (h0, c0), width=4)
    *of_inputs, dh0, dc0 = layer.backward(np.full_like(y, np.nan), dh, dc)
    for found, right in zip((h, c, dh0, dc0), (h0, c0, dh, dc), strict=True):
        np.testing.assert_array_equal(found, right)
    assert not any(array.any() for array in (y, *of_inputs))


def test_a_row_that_is_not_finite_leaves_the_others_alone():
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


@pytest.mark.parametrize(
    ("layout", "places", "error"), [("sideways", 8, OptionError), ("padded", 2**31, ShapeError)]
)
def test_tables_of_what_they_cannot_hold_are_refused(layout, places, error):
    with pytest.raises(error, match="make_tables"):
        make_tables(xp, layout, np.array([1], np.int32), 8, places)


@pytest.mark.parametrize(
    ("layout", "lengths", "wrong"),
    [
        ("time_major", [3, 4, -1], [False, True, True]),
        ("jagged", [3, 2, 1], [True] * 3),  # more than there is room for
        ("jagged", [3, -1, 1], [True] * 3),
        ("jagged", [4, 0, 1], [True] * 3),  # it displaces the others
        ("jagged", [2**31 - 2] * 2, [True] * 2),  # their sum wraps around
        ("packed", [1, 2, 1], [True] * 3),  # not longest first
        ("packed", [2, 2, 1], [False] * 3),
    ],
)
def test_lengths_that_would_leave_an_array_are_bounded(layout, lengths, wrong):
    width, places = (3, 5) if max(lengths) < 9 else (2**31 - 1, 2**31 - 1)
    bounded, found = bound_lengths(xp, layout, np.array(lengths, np.int32), width, places)
    assert found.tolist() == wrong
    assert bounded.tolist() == [0 if bad else n for n, bad in zip(lengths, wrong, strict=True)]
