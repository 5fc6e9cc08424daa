"""The outcome of each transformation, made from the tables that the conformance suite runs."""

from __future__ import annotations

from ragged_conformance.transformations import table_of
from ragged_conformance.transformations.lines import Transformation

HEAD = """\
# Transformations

Made from the tables that the [conformance suite](../why/conformance.md) runs, where each outcome
is a test, of some layers and models under `--exhaustive`: "right" is compared with the float64
oracle, an error has to be raised, and "-" has no such transformation. What follows from it:
[derivatives and transformations](../guides/transformations.md).
"""
FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX"}
# A problem of the suite that stands for its kind.
KINDS = {
    "layers": "LSTM",
    "functions": "lstm, projection",
    "EncoderDecoderLSTM": "EncoderDecoderLSTM",
    "models with attention": "AttentionLSTM",
}


def page() -> str:
    """Write the page."""
    lines = [HEAD]
    for backend, title in FRAMEWORKS.items():
        lines += [f"## {title}", "", "| transformation | " + " | ".join(KINDS) + " |"]
        lines += ["|---" * (len(KINDS) + 1) + "|"]
        for name, transformation in table_of(backend).items():
            outcomes = [_outcome(transformation, problem) for problem in KINDS.values()]
            lines.append(f"| {name} | " + " | ".join(outcomes) + " |")
        lines.append("")
    return "\n".join(lines)


def _outcome(transformation: Transformation, problem: str) -> str:
    if not transformation.is_tried(problem, exhaustive=True):
        return "-"
    refusal = transformation.refusal(problem)
    return "right" if refusal is None else f"`{refusal.__name__}`"
