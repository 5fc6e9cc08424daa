"""The site is built without a warning, and read without a network, on small and large screens."""

import contextlib
import inspect
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ragged.protocol import MEMBERS

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
PUBLIC = ("ragged", "ragged.losses", "ragged.models", "ragged.data", "ragged.errors",
          "ragged.training", "ragged.forecasting", "ragged.report", "ragged.recurrent.convert",
          "ragged_torch", "ragged_jax")  # fmt: skip
LOOKED_AT = ("index", "coming-from/torch-lstm", "coming-from/flax", "coming-from/keras",
             "guides/packing", "guides/data", "guides/deployment", "why/torch-cases",
             "speed/benchmarks", "reference/recurrent", "reference/yaml", "errors", "limits",
             "repository/benchmarks/results/cpu", "notebooks/flax_rnn")  # fmt: skip
WIDTHS = (1280, 390)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site."""
    if find_spec("mkdocs") is None or find_spec("jupytext") is None:
        pytest.skip("the extra `docs` is not installed")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with contextlib.chdir(ROOT), warnings.catch_warnings(action="ignore"):
        config = load_config("mkdocs.yml", strict=True, site_dir=str(folder))
        config.plugins.on_startup(command="build", dirty=False)
        build(config)  # in this process, which has the frameworks; a warning is an error
    return folder


def test_the_site_is_built_without_a_warning(site) -> None:
    pages = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    assert set(LOOKED_AT) < pages
    assert (site / "notebooks/episodes.ipynb").exists()
    index = (site / "index.html").read_text()
    assert "README:" not in index
    assert "Each is a test" in (site / "why/guarantees.html").read_text()


def test_no_page_names_another_host_to_load_from(site) -> None:
    loads = re.compile(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="?(?:https?:)?//')
    for page in site.rglob("*.html"):
        found = [tag for tag in loads.findall(page.read_text()) if "canonical" not in tag]
        assert not found, page


def test_examples_in_docstrings_are_code(site) -> None:
    for page in (site / "reference").glob("*.html"):
        assert "<blockquote>" not in page.read_text(), page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser of this machine."""
    api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser is installed: {', '.join(BROWSERS)}")
    with api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_open_without_errors_and_requests(site, browser, scheme) -> None:
    said, asked = [], []
    view = browser.new_context(color_scheme=scheme)
    page = view.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    for name in LOOKED_AT:
        page.set_viewport_size({"width": WIDTHS[0], "height": 800})
        page.goto((site / f"{name}.html").as_uri())
        shade = page.evaluate("document.body.getAttribute('data-md-color-scheme')")
        assert shade == {"light": "default", "dark": "slate"}[scheme]
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} is {wide} wide"
            _save(page, f"{name.replace('/', '_')}-{width}-{scheme}.png")
    view.close()
    assert not said
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]


def _save(page: Any, name: str) -> None:
    """Save what is seen, where SCREENSHOTS names a folder to look at."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder, name))


def test_the_search_finds_without_a_server(site, browser) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.locator("input.md-search__input").click()
    page.keyboard.type("replace_recurrent")
    page.locator(".md-search-result__item").first.wait_for(timeout=60_000)
    found = page.locator(".md-search-result").inner_text()
    page.close()
    assert "Recurrent layers" in found


def test_the_reference_has_every_public_name() -> None:
    listed = set(re.findall(r"^::: ([\w.]+)$", _reference(), re.MULTILINE))
    missing = [
        name
        for module in PUBLIC
        for name in _public(module)
        if not _is_listed(module, name, listed)
    ]
    assert not missing


def test_every_public_name_has_an_example() -> None:
    """Of errors the messages are tested, and a report needs a run."""
    lacking = [
        f"{module}.{name}"
        for module in set(PUBLIC) - {"ragged.errors", "ragged.report"}
        for name in _public(module)
        if not _is_member(module, name)
        and ">>> " not in (getattr(import_module(module), name).__doc__ or "")
    ]
    assert not lacking


def test_the_reference_lists_what_there_is() -> None:
    for name in re.findall(r"^::: ([\w.]+)$", _reference(), re.MULTILINE):
        if name.startswith("ragged_"):
            pytest.importorskip({"ragged_torch": "torch", "ragged_jax": "flax"}[name.split(".")[0]])
        module, _, attribute = name.rpartition(".")
        try:
            import_module(name)
        except ModuleNotFoundError:
            assert hasattr(import_module(module), attribute), name


def _reference() -> str:
    return "\n".join(page.read_text() for page in REFERENCE.glob("*.md"))


def _public(module: str) -> list[str]:
    """The names of a module that are classes or functions, and no member of a backend."""
    if module.startswith("ragged_"):
        pytest.importorskip({"ragged_torch": "torch", "ragged_jax": "flax"}[module])
    found = import_module(module)
    names = getattr(found, "__all__", None) or [
        name for name, value in vars(found).items() if getattr(value, "__module__", "") == module
    ]
    return [name for name in names if callable(getattr(found, name))]


def _is_listed(module: str, name: str, listed: set[str]) -> bool:
    value = getattr(import_module(module), name)
    place = getattr(value, "__module__", module)
    is_listed = f"{place}.{name}" in listed or place in listed - {"ragged.losses"}
    return is_listed or _is_member(module, name)


def _is_member(module: str, name: str) -> bool:
    """Whether a backend has the name as any backend has it; `ragged` is its front."""
    return module.startswith("ragged_") and name in MEMBERS


SHARED = (
    "prediction",
    "target",
    "lengths",
    "mask",
    "weights",
    "reduction",
    "alignment",
)  # of losses


def test_every_argument_in_the_reference_is_documented() -> None:
    """A model's configuration has the model's arguments, a loss those of `ragged.losses`."""
    parsing = pytest.importorskip("docstring_parser")
    missing = {}
    for name in re.findall(r"^::: ([\w.]+)$", _reference(), re.MULTILINE):
        module, _, attribute = name.rpartition(".")
        value = getattr(import_module(module), attribute, None)
        if (
            not callable(value)
            or attribute.endswith("Config")
            or name == "ragged.models.base.Model"
        ):
            continue
        told = set(SHARED) if module.startswith("ragged.losses.") else set()
        for each in value.__mro__ if inspect.isclass(value) else [value]:
            said = parsing.parse(inspect.getdoc(each) or "", parsing.DocstringStyle.GOOGLE)
            told |= {parameter.arg_name for parameter in said.params}
        with contextlib.suppress(ValueError):  # a protocol has no arguments
            arguments = inspect.signature(value).parameters.values()
            named = {each.name for each in arguments if each.kind not in (2, 4)}
            missing |= {name: sorted(named - told)} if named - told else {}
    assert not missing


def test_every_array_in_the_reference_has_a_shape() -> None:
    parsing = pytest.importorskip("docstring_parser")
    for name in re.findall(r"^::: ([\w.]+)$", _reference(), re.MULTILINE):
        module, _, attribute = name.rpartition(".")
        value = getattr(import_module(module), attribute, None)
        types = getattr(value, "__annotations__", {})
        said = parsing.parse(inspect.getdoc(value) or "", parsing.DocstringStyle.GOOGLE)
        for each in said.params:
            if re.match(r"(np\.)?(Array|ndarray|Tensor)\b", str(types.get(each.arg_name))):
                assert re.search(r"\(|shape", each.description or ""), f"{name}: {each.arg_name}"
