"""Backend selection: how a call finds the framework that computes it.

An array's own framework decides. The chosen backend decides for lists, NumPy arrays and
constructors: `use_backend` over `set_backend` over the variable `RAGGED_BACKEND`; with nothing
chosen, the only one installed.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeVar, cast

import numpy as np

from ragged.checks import shown
from ragged.errors import BackendError, MissingMemberError, MixedFrameworksError
from ragged.protocol import MEMBERS, Backend, HostData

ENTRY_POINT_GROUP = "ragged.backends"
FRAMEWORKS = {"ragged_torch": "torch", "ragged_jax": "flax"}  # of the bundled backends
Function = TypeVar("Function", bound=Callable[..., Any])

_default: str | None = None
_local: ContextVar[str | None] = ContextVar("ragged_backend", default=None)
_loaded: dict[str, Backend] = {}


def recorded_as_constant(function: Function) -> Function:
    """Have Dynamo call a function while it traces, and keep its result as a constant.

    Imports and metadata cannot be traced. This is what `torch.compiler.assume_constant_result`
    sets, without importing torch.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@functools.cache
def available_backends() -> tuple[str, ...]:
    """Name the registered backends whose framework is installed.

    >>> set(available_backends()) <= {point.name for point in _registered()}
    True
    """
    return tuple(sorted(point.name for point in _registered() if _is_installed(point.value)))


def set_backend(name: str) -> None:
    """Choose the backend of this process, new threads included.

    Args:
        name: a registered backend ("torch", "jax") or the import path of a backend module.

    Raises:
        BackendError: the name is unknown, or its module lacks members of `Backend`.

    Example:
        >>> import ragged
        >>> ragged.set_backend("unknown")
        Traceback (most recent call last):
        ...
        ragged.errors.BackendError: set_backend(): `name` is 'unknown' ...
    """
    global _default
    load_backend(name)
    _default = name


@contextmanager
def use_backend(name: str) -> Iterator[Backend]:
    """Choose the backend inside a `with` block, for this thread or task alone.

    Args:
        name: as in `set_backend`.

    Yields:
        The backend.

    Raises:
        BackendError: as `set_backend`.

    Example:
        >>> import ragged
        >>> for name in ragged.available_backends():
        ...     with ragged.use_backend(name) as backend:
        ...         assert ragged.get_backend() is backend
    """
    backend = load_backend(name)
    token = _local.set(name)
    try:
        yield backend
    finally:
        _local.reset(token)


def get_backend() -> Backend:
    """Return the chosen backend; a compiled program keeps the one chosen at its compilation.

    Raises:
        BackendError: nothing is chosen and not exactly one backend is installed.

    Example:
        >>> import ragged
        >>> with ragged.use_backend(ragged.available_backends()[0]):
        ...     ragged.get_backend().name == ragged.available_backends()[0]
        True
    """
    return load_backend(_chosen_name())


@recorded_as_constant
def _chosen_name() -> str:
    name = _local.get() or _default or os.environ.get("RAGGED_BACKEND")
    if name:
        return name
    available = available_backends()
    if len(available) == 1:
        return available[0]
    if not available:
        raise BackendError(
            "get_backend(): no backend is installed. "
            "Install one: pip install 'ragged-sequences[torch]' or 'ragged-sequences[jax]'."
        )
    raise BackendError(
        f"get_backend(): no backend is chosen and {len(available)} are installed "
        f"({', '.join(available)}). Choose one: ragged.set_backend({available[0]!r}), "
        f"`with ragged.use_backend({available[0]!r}):` or RAGGED_BACKEND={available[0]}."
    )


def load_backend(name: str, *, partial: bool = False) -> Backend:
    """Import a backend by its registered name or import path, and check that it is complete.

    Args:
        name: a registered backend or the import path of a backend module.
        partial: accept missing members, as the conformance suite does; using one raises
            `MissingMemberError`.

    Raises:
        BackendError: the name is unknown, or (unless `partial`) members of `Backend` are missing.
    """
    _load(name, partial)
    return _loaded[name]


@recorded_as_constant
def _load(name: str, partial: bool) -> None:
    if isinstance(name, str) and name in _loaded:
        return
    if not isinstance(name, str) or not all(map(str.isidentifier, _module_of(name).split("."))):
        expected, remedy = "the name of a backend, a str", "Name 'torch' or 'jax'."
        raise BackendError.of("set_backend", "name", shown(name), expected, remedy)
    module = _import(name)
    missing = missing_members(module)
    if missing and not partial:
        raise BackendError(
            f"set_backend(): backend {name!r} lacks {', '.join(missing)}; expected every "
            "member of ragged.protocol.Backend. Add them to its module."
        )
    _loaded[name] = cast(Backend, _PartialBackend(name, module) if missing else module)


def missing_members(backend: object) -> tuple[str, ...]:
    """Name the members of `Backend` that a module lacks.

    >>> missing_members(object())[:3]
    ('Recurrent', 'TrainingStep', 'arange_like')
    """
    module = backend.module if isinstance(backend, _PartialBackend) else backend
    return tuple(member for member in MEMBERS if not hasattr(module, member))


class _PartialBackend:
    """A backend module that lacks members: using one raises `MissingMemberError`."""

    def __init__(self, name: str, module: ModuleType) -> None:
        self.name, self.module = name, module

    def __getattr__(self, member: str) -> Any:
        if member in MEMBERS and not hasattr(self.module, member):
            return _MissingMember(f"backend {self.name!r} lacks `{member}`")
        return getattr(self.module, member)


class _MissingMember:
    """Placeholder for a member that a backend module lacks."""

    def __init__(self, message: str) -> None:
        self.message = message

    def __call__(self, *args: object, **kwargs: object) -> Any:
        raise MissingMemberError(f"{self.message}; expected it in its module. Add it.")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self()


def backend_of(function: str, **arrays: object) -> Backend:
    """Return the backend that owns the arrays of one call, or else the chosen one.

    Raises:
        MixedFrameworksError: two arguments belong to two frameworks.
    """
    owners = _owners(arrays)
    if len(set(owners.values())) > 1:
        _refuse_mixture(function, owners)
    if owners:
        return load_backend(next(iter(owners.values())))
    try:
        return get_backend()
    except BackendError:
        maker = _maker(arrays.values())
        if maker is None:
            raise
        return load_backend(maker)


def check_frameworks(function: str, backend: Backend, **arrays: object) -> None:
    """Refuse arrays that belong to another framework than a module's own.

    Raises:
        MixedFrameworksError: an argument belongs to another framework.
    """
    owners = _owners(arrays)
    if set(owners.values()) - {backend.name}:
        _refuse_mixture(function, {"the module": backend.name, **owners})


def is_traced(value: object) -> bool:
    """Whether a compiler traces a value, an array of any framework."""
    owner = _owner(value)
    return owner is not None and load_backend(owner).is_traced(value)


def to_host(value: object) -> object:
    """Copy an array of any framework to the host; other values are returned unchanged."""
    owner = _owner(value)
    return value if owner is None else load_backend(owner).to_numpy(value)


def _owners(arrays: Mapping[str, object]) -> dict[str, str]:
    """Name the backend that owns each argument, where one does."""
    owners = {argument: _owner(array) for argument, array in arrays.items()}
    return {argument: name for argument, name in owners.items() if name is not None}


def _maker(values: Iterable[object]) -> str | None:
    """Name the backend of whose framework a value is that it does not own, a sparse tensor say."""
    modules = {type(value).__module__.partition(".")[0] for value in values}
    owners = (name for name in _possible_owners() if _loaded[name].framework in modules)
    return next(owners, None)


def _refuse_mixture(function: str, owners: Mapping[str, str]) -> None:
    got = ", ".join(f"`{argument}` of {name}" for argument, name in owners.items())
    raise MixedFrameworksError(
        f"{function}(): arrays of several frameworks: {got}; expected one framework. "
        "Convert with numpy.asarray() first."
    )


def _owner(value: object) -> str | None:
    """Name the backend that owns a value, loaded backends first; None if there is none."""
    if value is None or isinstance(value, (np.ndarray, list, tuple, int, float, HostData)):
        return None
    return next((name for name in _possible_owners() if _loaded[name].owns(value)), None)


@recorded_as_constant  # tracing itself changes which backends are loaded
def _possible_owners() -> tuple[str, ...]:
    """Name the backends that may own arrays: those whose framework is imported."""
    others = [
        name
        for name in available_backends()
        if name not in _loaded and {name, _module_of(name)} & sys.modules.keys()
    ]
    return (*_loaded, *filter(_is_loadable, others))


def _is_loadable(name: str) -> bool:
    """Whether a backend can be loaded; a broken or partial one must not stop the others."""
    try:
        load_backend(name)
    except BackendError:
        return False
    return True


@functools.cache  # reading the metadata of all distributions takes milliseconds
def _registered() -> tuple[Any, ...]:
    return tuple(entry_points(group=ENTRY_POINT_GROUP))


@functools.cache
def _module_of(name: str) -> str:
    return next((point.value for point in _registered() if point.name == name), name)


@functools.cache
def _is_installed(module: str) -> bool:
    """Whether a backend module, and the framework of a bundled one, can be found."""
    framework = FRAMEWORKS.get(module)
    return _is_found(module) and (framework is None or _is_found(framework))


def _is_found(module: str) -> bool:
    """Whether there is a module of a name; a folder without `__init__.py`, say of runs, is none."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def _import(name: str) -> ModuleType:
    module_name = _module_of(name)
    names = ", ".join(repr(point.name) for point in _registered())
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        got = f"{name!r} ({error})"
        expected = f"one of {names} with its framework installed, or the path of a backend module"
        remedy = "Check the spelling, or install the module."
        if module_name in FRAMEWORKS:
            extra = module_name.removeprefix("ragged_")
            remedy = f"Install the extra: pip install 'ragged-sequences[{extra}]'."
        raise BackendError.of("set_backend", "name", got, expected, remedy) from error
