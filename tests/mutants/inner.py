"""Sessions of pytest inside a test: collected once, and run as often as there are faults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from _pytest.config import _prepareconfig  # as pytest-xdist's workers do: there is no other way

from ragged.errors import RaggedError

# Nothing that the outer session has set up for this process may be taken down by an inner one, and
# what no test of the suite needs costs each of them time.
HERMETIC = (
    *("-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:logging"),
    *("-p", "no:unraisableexception", "-p", "no:threadexception"),
    *("-p", "no:junitxml", "-p", "no:pastebin", "-p", "no:stepwise", "-p", "no:unittest"),
    *("-p", "no:setuponly", "-p", "no:setupplan", "-p", "no:subtests", "-p", "no:legacypath"),
    *("--capture=no", "--tb=native", "-o", "addopts=--import-mode=importlib"),
)

# A crash is no proof that the suite compares anything.
RED = (AssertionError, pytest.fail.Exception, RaggedError)


class Result(NamedTuple):
    """What became of one test."""

    test: str
    outcome: str
    is_red: bool


class InnerSession:
    """The tests of some files, collected.

    Args:
        folder: what the names of tests are relative to.
        files: in it; none are all.
        options: of pytest.
    """

    def __init__(self, folder: Path, files: Iterable[str], options: Iterable[str] = ()) -> None:
        self._folder = folder
        self._results: list[Result] = []
        places = [str(folder / file) for file in sorted(files)] or [str(folder)]
        with _environment():
            self._config = _prepareconfig([*HERMETIC, *options, *places], [self])
            self._config._do_configure()
            self._session = pytest.Session.from_config(self._config)
            self._config.hook.pytest_sessionstart(session=self._session)
            self._config.hook.pytest_collection(session=self._session)
        self._items = {self._name(item): item for item in self._session.items}

    def run(self, tests: Iterable[str] = ()) -> list[Result]:
        """Run tests by name, all if none are named, each fixture anew: the last test ends all."""
        self._results = []
        items = [self._items[test] for test in tests] or self._session.items
        with _environment():
            for item, following in zip_longest(items, items[1:]):
                self._config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return self._results

    def close(self) -> None:
        """End the session, without the summary of what faults turned red."""
        self._config.pluginmanager.unregister(name="terminalreporter")
        with _environment():
            self._config.hook.pytest_sessionfinish(session=self._session, exitstatus=0)
            self._config._ensure_unconfigure()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Iterator[None]:
        """Keep what became of a test."""
        report: Any = yield
        if report.when == "call":
            is_red = report.failed and isinstance(call.excinfo.value, RED)
            self._results.append(Result(self._name(item), report.outcome, is_red))
        return report

    def _name(self, item: pytest.Item) -> str:
        file = item.path.relative_to(self._folder)
        return f"{file.as_posix()}::{item.nodeid.partition('::')[2]}"


@contextmanager
def _environment() -> Iterator[None]:
    """Keep the outer session's variables from the inner one, and give them back."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_CURRENT_TEST"):
            patch.delenv(variable, raising=False)
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        yield
