"""Print the page: `python -m tests.recurrent.torch_cases > docs/why/torch-cases.md`."""

from tests.recurrent.torch_cases import page

print(page(), end="")
