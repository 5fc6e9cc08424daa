"""Faults: product code with one expression changed, so that the conformance suite must turn red.

A fault reads like a diff. It swaps the code of the functions it changes in place, so that it holds
wherever a function was imported to, and it refuses to be applied to source it no longer fits.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import pkgutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType

from tests.mutants.programs import forget_programs


class StaleFaultError(Exception):
    """A fault whose place in the source is gone."""


@dataclass(frozen=True)
class Edit:
    """One expression of one function, replaced.

    Args:
        target: "module:function", "module:Class.method" or the name of a property.
        old: a fragment of its source that stands there once.
        new: what takes its place.
    """

    target: str
    old: str
    new: str

    def function(self) -> FunctionType:
        """Find the plain function under its decorators."""
        try:
            found = pkgutil.resolve_name(self.target)
        except (AttributeError, ImportError) as error:
            raise StaleFaultError(f"{self.target} is gone: {error}") from error
        for inner in ("fget", "func", "__func__"):  # property, cached_property, classmethod
            found = getattr(found, inner, found)
        return inspect.unwrap(found)

    def compile(self) -> CodeType:
        """Compile the whole file with the fragment replaced, and take the function out of it."""
        function = self.function()
        lines, number = inspect.getsourcelines(function)
        block = "".join(lines)
        if block.count(self.old) != 1:
            raise StaleFaultError(
                f"{self.target} holds {self.old!r} {block.count(self.old)} times; expected once."
            )
        source = inspect.getsource(sys.modules[function.__module__]).splitlines(keepends=True)
        source[number - 1 : number - 1 + len(lines)] = [block.replace(self.old, self.new)]
        file = compile("".join(source), inspect.getfile(function), "exec", dont_inherit=True)
        name = function.__code__.co_qualname
        return next(code for code in _nested(file) if code.co_qualname == name)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run a block with the fragment replaced."""
        function, code = self.function(), self.compile()
        before = function.__code__
        function.__code__ = code
        try:
            yield
        finally:
            function.__code__ = before


# All faults of the kernels' headers, which one library of a cell holds: it is compiled once.
HEADER_EDITS: list[HeaderEdit] = []
PLANTED = '#include <cstdlib>\n#define planted std::atoi(std::getenv("PLANTED"))\n'


@dataclass(frozen=True)
class HeaderEdit:
    """An expression or a statement of a C++ header, replaced; torch's kernels are compiled with it.

    Args:
        file: a header of `ragged.kernels`.
        old: an expression, or a statement with its semicolon, that stands there once.
        new: what takes its place.
    """

    file: str
    old: str
    new: str

    def applied(self) -> AbstractContextManager[None]:
        """Run a block with the fragment replaced."""
        return with_planted(HEADER_EDITS.index(self) + 1)


@contextmanager
def with_planted(number: int) -> Iterator[None]:
    """Run a block with kernels that hold all edits of headers; this one is in force, or 0: none."""
    from ragged_torch import gated_kernels as gated
    from ragged_torch.ragged_attention import cpp as attention
    from ragged_torch.recurrent import cpp as recurrent

    from ragged import kernels
    from ragged.backend import available_backends, load_backend

    for backend in available_backends():  # one first imported inside would keep the copy's path
        load_backend(backend)
    users, folder = (recurrent, attention, gated), planted_sources()
    before, flags = kernels.HEADERS, kernels.FLAGS
    sources = [own.SOURCE for own in users]
    os.environ["PLANTED"] = str(number)
    kernels.HEADERS = folder
    kernels.FLAGS = (*flags, "-O0", "-include", str(folder / "planted.hpp"))
    for own, source in zip(users, sources, strict=True):
        own.SOURCE = folder / source.name  # which finds the headers beside it
        own._load.cache_clear()
    kernels._load.cache_clear()
    try:
        yield
    finally:
        kernels.HEADERS, kernels.FLAGS = before, flags
        for own, source in zip(users, sources, strict=True):
            own.SOURCE = source
            own._load.cache_clear()
        kernels._load.cache_clear()
        del os.environ["PLANTED"]


@functools.cache
def planted_sources() -> Path:
    """Copy the kernels' sources with all edits in them, to one folder for all processes."""
    from ragged import kernels

    texts = {file.name: file.read_text() for file in sorted(kernels.HEADERS.glob("*.[ch]pp"))}
    for number, edit in enumerate(HEADER_EDITS, 1):
        texts[edit.file] = plant(texts[edit.file], edit.old, edit.new, number, edit.file)
    texts["planted.hpp"] = PLANTED
    digest = hashlib.sha256("\0".join(texts.values()).encode()).hexdigest()[:16]
    folder = Path(sys.prefix) / "planted" / digest
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        for name, text in texts.items():
            Path(made, name).write_text(text)
        with suppress(OSError):  # another process was first
            Path(made).rename(folder)
            Path(made).mkdir()
    return folder


def plant(text: str, old: str, new: str, number: int, file: str) -> str:
    """Let C++ do the wrong thing where `planted` is a number.

    Args:
        text: of a file.
        old: an expression, or a statement with its semicolon, that stands there once.
        new: what takes its place.
        number: of the fault, from 1.
        file: its name.
    """
    if text.count(old) != 1:
        raise StaleFaultError(f"{file} does not hold {old!r} once.")
    if old.endswith(";"):
        both = f"if (planted == {number}) {{ {new} }} else {{ {old} }}"
    else:
        both = f"(planted == {number} ? {new} : {old})"
    return text.replace(old, both)


@dataclass(frozen=True)
class Fault:
    """A mistake that somebody could make.

    Args:
        name: what is wrong.
        edits: the changes that make it so.
        caught_by: the conformance tests that must each turn red, `{backend}` for its name.
    """

    name: str
    edits: tuple[Edit | HeaderEdit, ...]
    caught_by: tuple[str, ...]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run a block with the fault, and leave no program behind that was compiled from it."""
        with ExitStack() as stack:
            stack.callback(forget_programs)
            for edit in self.edits:
                stack.enter_context(edit.applied())
            forget_programs()
            yield

    def tests(self, backend: str) -> list[str]:
        """The node ids of the tests that must turn red."""
        return [test.format(backend=backend) for test in self.caught_by]


def fault(name: str, target: str, old: str, new: str, *caught_by: str) -> Fault:
    """Make a fault of one edit."""
    return Fault(name, (Edit(target, old, new),), caught_by)


def header_fault(name: str, file: str, old: str, new: str, *caught_by: str) -> Fault:
    """Make a fault of one edit of a C++ header."""
    edit = HeaderEdit(file, old, new)
    if edit not in HEADER_EDITS:  # whose module is imported again is known
        HEADER_EDITS.append(edit)
    return Fault(name, (edit,), caught_by)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)
