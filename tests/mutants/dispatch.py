"""Faults in the choice of an implementation, which both backends make alike."""

from __future__ import annotations

from tests.mutants.mutant import fault
from tests.mutants.names import explain

EXPLAIN = "test_explain.py::test_"

FAULTS = (
    fault(
        "an implementation that cannot run is taken",
        "ragged.implementations:choose",
        "is None:",
        "is not None:",
        f"{EXPLAIN}the_first_without_a_reason_runs[{{backend}}]",
    ),
    fault(
        "kernels run whatever the policy",
        "ragged.recurrent.dispatch:policy_reason",
        "if call.policy in takes:",
        "if True:",
        f"{EXPLAIN}something_runs_whatever_the_call[{{backend}}-never-mixed]",
    ),
    fault(
        "kernels run without a compiler",
        "ragged.recurrent.dispatch:kernels_reason",
        "if not call.compiler:",
        "if False:",
        f"{EXPLAIN}without_a_compiler_no_kernels_run[{{backend}}]",
    ),
    fault(
        "tokens counted as the padded batch",
        "ragged.recurrent.dispatch:computed_steps",
        "lengths.tokens if exact else",
        "",
        f"{EXPLAIN}steps_computed_are_tokens_or_the_padded_batch[{{backend}}]",
    ),
    fault(
        "policy of given lengths ignored",
        "ragged.recurrent.explain:explain",
        "lengths if isinstance(lengths, Lengths) else",
        "",
        f"{EXPLAIN}lengths_keep_their_own_policy[{{backend}}]",
    ),
    fault(
        "reason for an implementation not told",
        "ragged.recurrent.explain:explain",
        "policy={valid.policy!r}",
        "policy",
        explain("never"),
    ),
)
