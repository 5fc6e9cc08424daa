"""Faults in the kernels of variable selection."""

from __future__ import annotations

from tests.mutants.mutant import fault, header_fault

TESTS = "models/test_selection_kernels.py::test"
ALIKE = f"{TESTS}_results_and_gradients_are_those_of_the_modules[48-37]"
DROPPED = f"{TESTS}_what_is_dropped_is_dropped_again_backward_and_by_plain_operations[0.4]"
WATCHED = f"{TESTS}_who_watches_a_module_sees_it_run[watch]"
FORWARD, BACKWARD = "selection.hpp", "selection_backward.hpp"

FAULTS = (
    *(
        header_fault(f"selection kernels: {name}", file, old, new, *caught_by)
        for name, file, old, new, *caught_by in (
            (
                "lanes beyond the features count",
                FORWARD,
                "n + L < pitch ? value : value * last",
                "value",
                ALIKE,
            ),
            (
                "deep products read the first rows alone",
                FORWARD,
                "b + first * lines.pitch",
                "b",
                f"{TESTS}_wide_networks_are_multiplied_in_pieces",
            ),
            (
                "all features drop the same",
                FORWARD,
                "dropped.query(0, feature, first + r)",
                "dropped.query(0, 0, first + r)",
                DROPPED,
            ),
            (
                "the slope of an elu is 1",
                BACKWARD,
                "h > T(0) ? Vec<T>{} + T(1) : slope",
                "Vec<T>{} + T(1)",
                ALIKE,
            ),
            (
                "nothing is dropped of gradients",
                BACKWARD,
                "net.drop(feature, first, count, own.output);",
                ";",
                DROPPED,
            ),
            (
                "the last segment's gradients are left out",
                BACKWARD,
                "total.add(sums[feature * segments + n]);",
                ";",
                f"{TESTS}_segments_add_up_and_threads_change_nothing",
            ),
        )
    ),
    fault(
        "selection: hooks are passed by",
        "ragged_torch.selection_kernels:_is_untouched",
        "not _is_watched(part)",
        "True",
        WATCHED,
    ),
)
