"""The host's threads see each fault of `tests/mutants/cuda.py`, all in one library of a cell."""

import ctypes
import functools
import shutil

import pytest

from ragged import kernels
from ragged.kernels.cuda import plans
from tests.kernels.cuda_cases import check, solved
from tests.kernels.cuda_host import FOLDER, HOPPER, HostLayer, compile_plan
from tests.mutants.cuda import FAULTS

pytestmark = pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")
OPTIONS = {
    "LSTM": {"reverse": True, "resets": True, "to_initial": True},
    "GRU": {"reverse": True},
}
PLANTED = 'extern "C" { inline int planted = 0; }\n'


@pytest.fixture(scope="module")
def library_of(tmp_path_factory):
    """Compile a cell's kernels with all faults in them, none of which is planted."""

    @functools.cache
    def compile_faults(cell):
        folder = tmp_path_factory.mktemp(cell)
        copy = folder / "cuda"
        shutil.copytree(FOLDER, copy)
        for header in kernels.HEADERS.glob("*.hpp"):
            shutil.copy(header, folder)
        for number, fault in enumerate(FAULTS, 1):
            path = copy / fault.file
            path.write_text(fault.edit(path.read_text(), number))
        (folder / "planted.hpp").write_text(PLANTED)
        plan = plans.make_plan(cell, "Forward", 5, gpu=HOPPER, dtype="float32")
        flags = ("-O0", "-shared", "-fPIC", "-include", str(folder / "planted.hpp"))
        made = compile_plan(plan, folder / "faults.so", *flags, folder=copy)
        return plan, ctypes.CDLL(str(made))

    return compile_faults


def check_planted(library_of, cell, number):
    plan, library = library_of(cell)
    planted = ctypes.c_int.in_dll(library, "planted")
    planted.value = number
    try:
        check(HostLayer(plan, library=library), *solved(cell, **OPTIONS[cell]), "packed")
    finally:
        planted.value = 0


@pytest.mark.parametrize("cell", OPTIONS)
def test_without_a_fault_the_numbers_are_right(library_of, cell):
    check_planted(library_of, cell, 0)


@pytest.mark.parametrize("number", range(1, len(FAULTS) + 1), ids=lambda n: FAULTS[n - 1].name)
def test_a_fault_is_seen(library_of, number):
    library_of(FAULTS[number - 1].cell)
    with pytest.raises(AssertionError):
        check_planted(library_of, FAULTS[number - 1].cell, number)
