"""Untrusted YAML: plain values within bounds, or an error that names the line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

MAX_BYTES = 2**18
MAX_DEPTH = 32
MAX_STRING = 1000

_ANCHOR_AND_ALIAS = re.compile(r"&.*\*", re.DOTALL)


def read(path: Path) -> Any:
    """Read a YAML file of at most `MAX_BYTES`.

    Raises:
        OSError: no regular file, or one that cannot be read.
        yaml.YAMLError: what `load` refuses.
    """
    if path.exists() and not path.is_file():  # reading a device or a pipe may never end
        raise OSError(0, "no regular file", str(path))
    with path.open("rb") as file:
        return load(file.read(MAX_BYTES + 1))


def load(content: bytes) -> Any:
    """Turn a document into plain values.

    Beyond the checks of PyYAML's safe loader these are refused: aliases, which can expand a few
    lines to billions of values; tags; repeated keys; and documents too long or too deep.

    Raises:
        yaml.YAMLError: with the line.

    >>> load(b"{a: 1e-3, b: 2026-01-31, c: [x, null]}")
    {'a': 0.001, 'b': '2026-01-31', 'c': ['x', None]}
    """
    if len(content) > MAX_BYTES:
        raise yaml.YAMLError(
            f"more than {MAX_BYTES} bytes; expected a configuration of a few lines"
        )
    try:
        return yaml.load(content, Loader=_PlainLoader)
    except ValueError as error:  # such as the integer 0x_
        raise yaml.YAMLError(str(error)) from error


class _PlainLoader(yaml.SafeLoader):
    """The safe loader without aliases, tags, timestamps and repeated keys, and with bounds."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        self.depth += 1
        problem = self._problem(event)
        if problem:
            raise ComposerError(None, None, problem, event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ComposerError(None, None, "a key that is no plain value", key.start_mark)
            if key.value in seen:
                raise ComposerError(None, None, f"key {key.value!r} is repeated", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def _problem(self, event: Any) -> str | None:
        if isinstance(event, yaml.AliasEvent):
            return f"alias *{event.anchor}; write the value out"
        if event.tag is not None:
            return f"tag {event.tag!r}; write plain values"
        if self.depth > MAX_DEPTH:
            return f"nested more than {MAX_DEPTH} deep"
        return _problem_of_text(event.value) if isinstance(event, yaml.ScalarEvent) else None


def _problem_of_text(text: str) -> str | None:
    """Return the problem of a scalar; jsonargparse parses some as YAML again, without bounds."""
    if len(text) > MAX_STRING:
        return f"a value of more than {MAX_STRING} characters"
    if "\0" in text:
        return "a NUL character"
    if _ANCHOR_AND_ALIAS.search(text) or text.count("[") + text.count("{") > MAX_DEPTH:
        return "YAML inside a string"
    return None


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1 reads 1e-3 as a string, because it has no decimal point.
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
