"""Fresh environments, each with what its requirements name and no more.

pip installs a wheel of this checkout, and finds what that requires: links to what is installed
here, so nothing is fetched or copied; nor are kernels compiled for a path that is soon gone. With
`FROM_INDEX` set all is as for a reader.
"""

import functools
import os
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path, PurePath
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def build_wheel(folder: Path) -> str:
    """Build a wheel of this checkout, and return its address."""
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel.as_uri()


def create(folder: Path, *requirements: str) -> dict[str, str]:
    """Create an environment, and return the variables under which its commands run."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    options, settings = ["--constraint", ROOT / "constraints.txt"], {}
    if not os.environ.get("FROM_INDEX"):
        options, settings = ["--no-index"], {"RAGGED_KERNELS": "0"}
        site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
        for name in _required(requirements):
            _link(name, site)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
    # Nothing else is there that a package could be in conflict with.
    _run(*pip, "--no-warn-conflicts", *options, *requirements)
    kept = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "RAGGED_BACKEND")}
    return {**kept, **settings, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}


def _required(requirements: tuple[str, ...]) -> list[str]:
    """The names of the distributions installed here that these require, directly or not."""
    waiting = [Requirement(each) for each in requirements]
    wheels = {each.name: _of_wheel(each.url) for each in waiting if each.url}
    found: dict[str, Distribution] = {}
    seen = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        package = wheels.get(name) or found.setdefault(name, distribution(name))
        for extra in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, extra))
            needed = map(Requirement, package.requires or ())
            waiting += [r for r in needed if not r.marker or r.marker.evaluate({"extra": extra})]
    return list(found)


def _of_wheel(address: str) -> Distribution:
    (found,) = distributions(path=[urlsplit(address).path])
    return found


def _link(name: str, site: Path) -> None:
    """Link a distribution's packages, and each file that is in none: folders may be shared."""
    own, parts = _parts_of(name)
    for part in parts:
        (site / part).parent.mkdir(parents=True, exist_ok=True)
        if not (site / part).exists():
            (site / part).symlink_to(own / part)


@functools.cache
def _parts_of(name: str) -> tuple[Path, set[PurePath]]:
    """Where a distribution lies, and what of it is linked; torch alone has 10,000 files."""
    package = distribution(name)
    own = Path(str(package.locate_file("")))
    files = [file for file in package.files or () if file.parts[0] != ".."]
    return own, {_outermost_package(own, file.parent) or file for file in files}


@functools.cache
def _outermost_package(own: Path, folder: PurePath) -> PurePath | None:
    """The package that a folder is or lies in; one answer serves all files of the folder."""
    _, *folders = *reversed(folder.parents), folder
    return next((each for each in folders if (own / each / "__init__.py").exists()), None)


def _run(*command: object, cwd: Path | None = None) -> None:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
