"""Faults in attention over ragged rows: in its kernels, and in what runs without them."""

from __future__ import annotations

from tests.mutants.mutant import Fault, fault, header_fault


def result(form: str, case: str = "mixed") -> str:
    """Name a test of attention's result."""
    test = "test_result_and_weights_equal_the_oracle"
    return f"test_attention.py::{test}[{{backend}}-{case}-{form}]"


def gradient(form: str, kernels: str = "kernels") -> str:
    """Name a test of attention's gradients."""
    return f"test_attention.py::test_gradients_equal_the_oracle[{kernels}-{{backend}}-{form}]"


def jagged(form: str) -> str:
    """Name a test of tokens that lie end to end."""
    test = "test_jagged_rows_give_what_padded_rows_give"
    return f"test_attention.py::{test}[kernels-{{backend}}-{form}]"


LONG = "test_attention.py::test_long_rows_give_what_plain_operations_give[{backend}-False]"

KERNELS = tuple(
    header_fault(f"attention kernels: {name}", file, old, new, *caught_by)
    for name, file, old, new, *caught_by in (
        (
            "causal hides a key more",
            "attention.hpp",
            "keys - queries + diagonal + query + 1",
            "keys - queries + diagonal + query",
            result("heads, causal"),
            gradient("heads, causal"),
        ),
        (
            "the mean over heads is their sum",
            "attention.hpp",
            "is_shared ? 1.0 / double(heads) : 1.0",
            "1.0",
            result("shared, scaled"),
            gradient("shared, scaled"),
        ),
        (
            "rows drop the same weights",
            "attention_forward.hpp",
            "dropped.query(row, head, first + r)",
            "dropped.query(0, head, first + r)",
            result("heads, dropped"),
            "test_attention.py::test_what_is_dropped_depends_on_places_in_rows_alone"
            "[{backend}-width0]",
        ),
        (
            "jagged rows lie apart",
            "attention.hpp",
            "layout == Layout::padded ? row * width : end",
            "layout == Layout::padded ? row * width : end + (row > 1)",
            jagged("heads"),
        ),
        (
            "what no token fills is not 0",
            "attention.hpp",
            "std::fill(array + first * features, array + last * features, T(0));",
            "std::fill(array + first * features, array + last * features, T(1));",
            result("heads"),
            gradient("heads"),
        ),
        (
            "scores are not scaled",
            "attention_forward.hpp",
            "T(call.scale * LOG2_E)",
            "T(LOG2_E)",
            result("shared, scaled"),
        ),
        (
            "keys beyond the last one weigh",
            "attention_forward.hpp",
            "std::fill(weights + seen, weights + pitch, -std::numeric_limits<T>::infinity());",
            "",
            result("heads"),
        ),
        (
            "every query has the first one's normaliser",
            "attention_backward.hpp",
            "kept.lse[(place + r) * heads + head]",
            "kept.lse[place * heads + head]",
            gradient("heads"),
        ),
        (
            "gradients pass by what was dropped",
            "attention_backward.hpp",
            "dropped.keeps<T>(query, j) ? weight * scale : Vec<T>{}",
            "weight * scale",
            gradient("heads, dropped"),
            gradient("shared, causal, dropped"),
        ),
        (
            "weights need not add up to 1",
            "attention_backward.hpp",
            "load(weights + j) * means[r]",
            "Vec<T>{}",
            gradient("heads"),
        ),
        (
            "the gradient of q is not scaled",
            "attention_backward.hpp",
            "T(call.scale)",
            "T(1)",
            gradient("shared, scaled"),
        ),
        (
            "the last queries of a long row alone count",
            "attention_backward.hpp",
            "total += load((each->*of).data() + feature * padded + first);",
            "total = load((each->*of).data() + feature * padded + first);",
            LONG,
        ),
    )
)


def faults_of(backend: str) -> tuple[Fault, ...]:
    """Give the faults in what a backend runs without kernels, and in its operator."""
    plain = f"ragged_{backend}.ragged_attention.plain"
    where = {"torch": "torch.where(some, torch.softmax(scores, -1), 0.0)"}
    where["jax"] = "jnp.where(some, jax.nn.softmax(scores, -1), 0)"
    softmax = {"torch": "torch.softmax(scores, -1)", "jax": "jax.nn.softmax(scores, -1)"}
    seen = {"torch": "seen_pairs", "jax": "visible_pairs"}
    shown = {"torch": "attend", "jax": "visible_pairs"}
    operator = {
        "torch": fault(
            "attention: the normaliser is lost on the way to the backward pass",
            "ragged_torch.ragged_attention.cpp:_Attention.backward",
            "lse, gradients[0])",
            "0 * lse, gradients[0])",
            gradient("heads"),
        ),
        "jax": fault(
            "attention: the kernels see the future",
            "ragged_jax.ragged_attention.cpp:_call",
            '"causal": options.causal',
            '"causal": False',
            result("heads, causal"),
        ),
    }
    return (
        fault(
            "attention: causal hides a key more",
            f"{plain}:{seen[backend]}",
            "<= shift",
            "< shift",
            gradient("heads, causal", "no kernels"),
        ),
        fault(
            "attention: a query that sees nothing weighs all",
            f"{plain}:attend",
            where[backend],
            softmax[backend],
            result("heads", "length 0"),
        ),
        fault(
            "attention: padding shows",
            f"{plain}:{shown[backend]}",
            "valid_q[:, :, None] & valid_k[:, None, :]",
            "valid_q[:, :, None] & (valid_k | True)[:, None, :]",
            gradient("heads", "no kernels"),
        ),
        operator[backend],
    )
