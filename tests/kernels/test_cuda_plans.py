"""How kernels are cut to GPUs: every plan fits, and what has none is refused."""

import pytest

from ragged.errors import KernelError
from ragged.kernels.cuda.plans import GATES, PASSES, ROWS, Gpu, choose_rows, has_plan, make_plan
from ragged.kernels.cuda.verdicts import checked_lengths

AMPERE, HOPPER, BLACKWELL = (Gpu.of(each) for each in [(8, 0), (9, 0), (10, 0)])
LARGEST = {  # hidden units that both passes have a kernel for
    (AMPERE, "LSTM"): 128,
    (AMPERE, "GRU"): 128,
    (AMPERE, "RNN_TANH"): 256,
    (HOPPER, "LSTM"): 576,
    (HOPPER, "GRU"): 640,
    (HOPPER, "RNN_TANH"): 1152,
}


@pytest.mark.parametrize(("gpu", "cell"), LARGEST)
def test_all_sizes_up_to_the_largest_have_kernels(gpu, cell):
    largest = LARGEST[gpu, cell]
    for hidden in (1, 2, 3, 17, 64, 100, 127, largest - 1, largest):
        assert has_plan(cell, hidden, gpu), hidden
    assert not has_plan(cell, largest + 1, gpu)


@pytest.mark.parametrize("direction", PASSES)
@pytest.mark.parametrize("cell", GATES)
def test_plans_keep_to_what_the_headers_assert(cell, direction):
    for hidden in (1, 5, 64, 100, 128, 200, 256):
        for rows in ROWS:
            plan = make_plan(cell, direction, hidden, gpu=HOPPER, rows=rows)
            assert plan.padded >= hidden
            assert plan.rows <= rows
            assert plan.threads % 32 == 0
            assert plan.threads * plan.group * plan.cluster == plan.padded * plan.lanes
            assert plan.depth % (4 * plan.lanes) == 0
            assert 32 % plan.lanes == plan.lanes % (plan.rows * plan.group) == 0
            assert plan.shared <= HOPPER.shared


def test_only_gpus_with_clusters_get_them():
    assert make_plan("LSTM", "Forward", 128, gpu=HOPPER).cluster == 2
    assert make_plan("LSTM", "Forward", 128, gpu=AMPERE).cluster == 1
    assert make_plan("LSTM", "Forward", 512, gpu=BLACKWELL).cluster == 16
    assert Gpu.of((7, 5)).shared < 64 * 1024  # the least of all
    consumer = Gpu.of((12, 0))  # has clusters of 8, and less shared memory
    assert has_plan("LSTM", 256, consumer)
    assert not has_plan("LSTM", 512, consumer)


@pytest.mark.parametrize(
    "changed",
    [{"cell": "PEEPHOLE"}, {"direction": "Sideways"}, {"dtype": "float64"}, {"rows": 3},
     {"hidden": 0}, {"hidden": 10_000}],
)  # fmt: skip
def test_what_has_no_kernel_is_refused(changed):
    with pytest.raises(KernelError, match=next(iter(changed))):
        make_plan(**{"cell": "LSTM", "direction": "Forward", "hidden": 8, "gpu": HOPPER, **changed})


def test_few_rows_are_spread_over_all_clusters():
    assert [choose_rows(batch, 8) for batch in (0, 8, 9, 16, 17, 1000)] == [1, 1, 2, 2, 4, 4]


@pytest.mark.parametrize("clusters", [1, 2, 8, 66, 108, 132])
def test_a_trial_checks_every_kernel_that_batches_of_its_class_run(clusters):
    for largest in (1, 2, 8, 64, 128, 256, 512):
        of_class = range(largest // 2 + 1, largest + 1)
        checked = map(len, checked_lengths(largest))
        assert {choose_rows(batch, clusters) for batch in of_class} == {
            choose_rows(batch, clusters) for batch in checked
        }
