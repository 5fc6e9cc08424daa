"""What mkdocs is told beside mkdocs.yml: pages that are made, and files of the repository.

A line `<!-- README: TITLE -->` stands for that section of README.md, so that each text is written
once. A link that leaves docs/ leads to a copy of the file within the site, under `repository/`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import diagrams
import notebooks
import transformations
import yaml_reference
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
SECTION = re.compile(r"^<!-- README: (.+) -->$", re.MULTILINE)
SHOWN_AS_THEY_ARE = (".md", ".png", ".svg", ".ipynb")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and pictures that are made, and what pages link to outside of docs/."""
    made = {**diagrams.files(), **notebooks.files()}
    made |= {"reference/yaml.md": yaml_reference.page()}
    made |= {"reference/transformations.md": transformations.page()}
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    waiting = list(files.documentation_pages())
    while waiting:
        page = waiting.pop()
        for path in _links_outside(page):
            uri = _uri(path)
            if files.get_file_from_path(uri) is None:
                files.append(_copy(config, uri, path))
                if path.suffix == ".md":
                    waiting.append(files.get_file_from_path(uri))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put in the sections of README.md, then lead links to what is in the site."""
    markdown = SECTION.sub(lambda found: _readme(found[1], page.file), markdown)
    markdown = LINK.sub(lambda found: _relink(found, page.file), markdown)
    return diagrams.in_both_themes(markdown)


def readme_section(title: str) -> str:
    """Return the text below a heading of README.md, without its pictures.

    Raises:
        KeyError: there is no such heading.
    """
    parts = re.split(r"^#+ (.*)\n", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    text = dict(zip(parts[1::2], parts[2::2], strict=True))[title]
    return re.sub(r"^!\[.*\n", "", text, flags=re.MULTILINE).strip()


def _readme(title: str, file: File) -> str:
    """A section of README.md, whose links are written as in a page of the site."""

    def relink(found: re.Match[str]) -> str:
        if "://" in found[2]:
            return found[0]
        path = os.path.relpath(ROOT / found[2], _place(file).parent)
        return f"[{found[1]}]({path}{found[3] or ''})"

    return LINK.sub(relink, readme_section(title))


def _relink(found: re.Match[str], file: File) -> str:
    """The same link, to the copy within the site where it leaves docs/."""
    path = _target(file, found[2])
    if path is None or (_is_page(file) and path.is_relative_to(ROOT / "docs")):
        return found[0]
    if path.is_dir():
        return found[1]
    uri = os.path.relpath(_uri(path), PurePosixPath(file.src_uri).parent)
    return f"[{found[1]}]({uri}{found[3] or ''})"


def _links_outside(page: File) -> Iterator[Path]:
    texts = [page.content_string]
    texts += [_readme(title, page) for title in SECTION.findall(texts[0])]
    for text in texts:
        for _, link, _ in LINK.findall(text):
            path = _target(page, link)
            if path is not None and path.is_file() and not path.is_relative_to(ROOT / "docs"):
                yield path


def _target(file: File, link: str) -> Path | None:
    """The file of the repository that a link of a page leads to."""
    return None if "://" in link else Path(os.path.normpath(_place(file).parent / link))


def _is_page(file: File) -> bool:
    return not file.src_uri.startswith("repository/")


def _place(file: File) -> Path:
    """Where the source of a page is."""
    if _is_page(file):
        return ROOT / "docs" / file.src_uri
    return ROOT / PurePosixPath(file.src_uri).relative_to("repository")


def _uri(path: Path) -> str:
    """Where a file of the repository is in the site."""
    if path.is_relative_to(ROOT / "docs"):
        return path.relative_to(ROOT / "docs").as_posix()
    uri = f"repository/{path.relative_to(ROOT).as_posix()}"
    return uri if path.suffix in SHOWN_AS_THEY_ARE else f"{uri}.md"


def _copy(config: Any, uri: str, path: Path) -> File:
    if path.suffix in SHOWN_AS_THEY_ARE:
        return File.generated(config, uri, abs_src_path=str(path))
    language = {".py": "python", ".toml": "toml"}.get(path.suffix, "text")
    text = f"# {path.relative_to(ROOT)}\n\n````{language}\n{path.read_text()}````\n"
    text = f"---\nsearch: {{exclude: true}}\n---\n{text}"
    return File.generated(config, uri, content=text)
