"""What PyTorch's own tests cover of recurrent layers and packed sequences, as cases of our own.

A case runs on `torch.nn` and on `ragged_torch`, and compares outcome by outcome. `CASES` lists all
of them, and the tests of PyTorch that none of ours stands for with the reason. It is also the page
`docs/why/torch-cases.md`, which `python -m tests.recurrent.torch_cases` prints.
"""

from __future__ import annotations

from tests.recurrent.torch_cases import (
    constructors,
    derivatives,
    elsewhere,
    packed_sequences,
    parameters,
    randomness,
    refusals,
    values,
)
from tests.recurrent.torch_cases.case import Case

CASES: list[Case] = sorted(
    case
    for module in (
        constructors,
        derivatives,
        elsewhere,
        packed_sequences,
        parameters,
        randomness,
        refusals,
        values,
    )
    for case in module.cases.listed
)

HEAD = """\
# PyTorch's own tests

What PyTorch's tests cover of `nn.RNN`, `nn.LSTM`, `nn.GRU` and packed sequences, and the outcome
with `ragged_torch`'s layers in their place. "Equal" means that a case written for both gives the
same values, states, gradients and parameters, under the same seed, and errors of the same type
about the same argument. What PyTorch tests on GPUs runs on a CPU here, with torch's `meta` device
as the second one. The cases are in `tests/recurrent/torch_cases`;
`tests/recurrent/test_torch_cases.py` runs them and checks that this page lists them. PyTorch's
module database (`test_forward`, `test_grad` and `test_errors` of `test_modules.py`) runs in
`tests/recurrent/test_torch_module_db.py`.
"""


def page() -> str:
    """Write the list as a page."""
    lines, file = [HEAD.rstrip()], ""
    for case in CASES:
        if case.file != file:
            file = case.file
            lines += ["", f"## {file}", "", "| test | what it covers | outcome |", "|---|---|---|"]
        lines.append(f"| `{case.test}` | {case.covers} | {case.outcome} |")
    return "\n".join(lines) + "\n"
