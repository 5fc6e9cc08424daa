"""Faults in the kernels of gated residual networks."""

from __future__ import annotations

from tests.mutants.attention import of_modules
from tests.mutants.mutant import fault, header_fault

TESTS = "models/test_gated_kernels.py::test"
ALIKE = f"{TESTS}_results_and_gradients_are_those_of_the_modules[48-37]"
DROPPED = f"{TESTS}_what_is_dropped_is_dropped_again_backward_and_by_plain_operations[0.4]"
WATCHED = f"{TESTS}_who_watches_a_module_sees_it_run[watch]"
BLOCKS = "models/test_gated_blocks.py::test"
ALONE = f"{BLOCKS}_results_and_gradients_are_those_of_the_modules[8-48-{{}}]"
ON_JAX = "models/test_jax_gated_kernels.py::test"
MODULES_ON_JAX = f"{ON_JAX}_results_and_gradients_are_those_of_the_modules"
FORWARD, BACKWARD, OF_FIELDS = "gated.hpp", "gated_backward.hpp", "gated_fields.hpp"
OF_ADDED = "net.narrow, count, gradients.added + first * call.hidden, call.hidden"

FAULTS = (
    *(
        header_fault(f"gated kernels: {name}", file, old, new, *caught_by)
        for name, file, old, new, *caught_by in (
            (
                "a feature's x lies token after token",
                OF_FIELDS,
                "return features * given();",
                "return given();",
                ALIKE,
            ),
            (
                "an interpolation stops short of the last input",
                OF_FIELDS,
                "double(rows - 1) / double(columns - 1)",
                "double(rows - 1) / double(columns)",
                ALONE.format("stretched"),
            ),
            (
                "what an interpolation is scaled by has the slope of a line",
                OF_FIELDS,
                "T(2 * share * open * (1 - open))",
                "T(2 * share * open)",
                ALONE.format("stretched"),
            ),
            (
                "a number's gradient is what its embedding gets",
                BACKWARD,
                "add_lanes<T>(coming * weight)",
                "add_lanes<T>(coming)",
                ALONE.format("features"),
            ),
            (
                "a softmax's gradient is its weights' alone",
                BACKWARD,
                "(wide.read(of_token, n) - mean)",
                "wide.read(of_token, n)",
                ALONE.format("features"),
            ),
            (
                "lanes beyond the scores are powers too",
                FORWARD,
                "below > T(0) ? Vec<T>{} : below",
                "below",
                f"{BLOCKS}_scores_far_below_0_have_the_weights_of_their_differences",
            ),
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
                "b + first * to_pitch",
                "b",
                f"{TESTS}_wide_networks_are_multiplied_in_pieces",
            ),
            (
                "all features drop the same",
                FORWARD,
                "dropped.query(0, feature)",
                "dropped.query(0, 0)",
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
                "net.drop(feature, first, count, own.output.data());",
                ";",
                DROPPED,
            ),
            (
                "the last segment's gradients are left out",
                BACKWARD,
                "total.add(sums[feature * segments + n], field);",
                ";",
                f"{TESTS}_segments_add_up_and_threads_change_nothing",
            ),
            (
                "a context is left out",
                FORWARD,
                "given.added ? given.added + first * call.hidden : nullptr",
                "nullptr",
                ALONE.format("context"),
            ),
            (
                "a context gets no gradient",
                BACKWARD,
                f"write(own.hidden, {OF_ADDED});",
                "std::fill_n(gradients.added + first * call.hidden, count * call.hidden, T(0));",
                ALONE.format("context"),
            ),
            (
                "x passes for the residual",
                FORWARD,
                "copy(given.residual + first * call.size, call.size, wide, count, inner.data());",
                "copy(x, x_pitch, wide, count, inner.data());",
                ALONE.format("gate"),
            ),
            (
                "all blocks keep their gates where the first one does",
                FORWARD,
                "at * 2 * wide.pitch",
                "Index(0)",
                f"{BLOCKS}_results_and_gradients_are_those_of_the_modules[49-250-plain]",
            ),
            (
                "a residual's gradient goes to x too",
                BACKWARD,
                "std::fill_n(own.x.begin(), count * own.inputs.pitch, T(0));",
                "std::copy_n(own.inner.begin(), count * own.inputs.pitch, own.x.begin());",
                ALONE.format("gate"),
            ),
            (
                "x is no residual to its gradient",
                BACKWARD,
                "std::copy_n(own.inner.begin(), count * wide.pitch, own.x.begin());",
                "std::fill_n(own.x.begin(), count * wide.pitch, T(0));",
                ALONE.format("plain"),
            ),
        )
    ),
    fault(
        "gated kernels: modules scale no interpolation",
        "ragged_torch.parameters:stretch_matrix",
        "sigmoid(scale).",
        "sigmoid(0 * scale).",
        ALONE.format("stretched"),
    ),
    fault(
        "gated kernels: hooks are passed by",
        "ragged_torch.gated_kernels:Parts.are_untouched",
        "or part._forward_hooks",
        "",
        WATCHED,
        f"{BLOCKS}_every_module_that_is_watched_runs[gate]",
    ),
    fault(
        "gated kernels: a residual that broadcasts is read as if it were whole",
        "ragged_torch.layers:GateAddNorm.forward",
        "x.shape == residual.shape and ",
        "",
        f"{BLOCKS}_a_residual_that_broadcasts_is_added_by_the_modules",
    ),
)

JAX = (
    *of_modules("jax", f"{MODULES_ON_JAX}[gate]", f"{MODULES_ON_JAX}[plain]"),
    *(
        fault(f"gated networks: {name}", target, old, new, f"{ON_JAX}_{caught_by}")
        for name, target, old, new, caught_by in (
            (
                "plain operations leave what is not dropped as it was",
                "ragged_jax.gated_plain:_run_network",
                "1 / (1 - rate)",
                "1",
                "what_is_dropped_is_dropped_again_backward_and_by_plain_operations[selection]",
            ),
            (
                "modules scale no interpolation",
                "ragged_jax.parameters:stretch_matrix",
                "sigmoid(scale)[",
                "sigmoid(0 * scale)[",
                "results_and_gradients_are_those_of_the_modules[stretched]",
            ),
            (
                "nothing is dropped",
                "ragged_jax.gated_kernels:_run",
                "dropout.rate_now",
                "0.0",
                "seed_and_step_decide_what_is_dropped[gate]",
            ),
            (
                "modules that were replaced are passed by",
                "ragged_jax.gated_kernels:takes_kernels",
                "parts.are_untouched and ",
                "",
                "a_module_that_was_replaced_runs[gate]",
            ),
            (
                "a residual that broadcasts is read as if it were whole",
                "ragged_jax.layers:GateAddNorm.__call__",
                "x.shape == residual.shape and ",
                "",
                "a_residual_that_broadcasts_is_added_by_the_modules",
            ),
            (
                "programs for a GPU call kernels of a CPU",
                "ragged_jax.gated_kernels:_choose",
                'device == "cpu" and ',
                "",
                "programs_for_elsewhere_hold_no_kernel[context]",
            ),
            (
                "what plain operations leave passes for kept",
                "ragged_jax.gated_plain:forward",
                "jnp.zeros(of_kept, kept_in(dtype))",
                "jnp.ones(of_kept, dtype).view(kept_in(dtype))",
                "passes_may_be_of_two_programs_with_and_without_kernels[zeros-gate]",
            ),
            (
                "kernels drop nothing",
                "ragged_jax.gated_kernels:_run_kernels",
                "call.rate",
                "0.0",
                "what_is_dropped_is_dropped_again_backward_and_by_plain_operations[gate]",
            ),
        )
    ),
)
