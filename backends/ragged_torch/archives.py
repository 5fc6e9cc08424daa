"""Untrusted programs of `torch.export`, without what torch would execute while it reads them.

Torch unpickles parts of such a file, evaluates the sizes in it as Python, and writes names in it
into code that it compiles. So a file is read here first: its arrays pass, every name in its text is
checked, metadata are dropped, and torch reads the rest.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from typing import Any

import torch

from ragged.export.program import REQUIRED

# What a file may hold, within the folder that torch puts around it.
PLAIN = re.compile(
    r"data/(weights/weight|constants/tensor)_\d+|\.data/\w+|byteorder|(archive_)?(version|format)"
)
PAYLOADS = re.compile(r"data/(weights|constants)/model_(weights|constants)_config\.json")
PICKLES = re.compile(
    r"data/(sample_inputs|weights|constants)/model\.pt"
    r"|serialized_(state_dict|constants|example_inputs)\.pt"
)
PROGRAM = re.compile(r"models/model\.json|serialized_exported_program\.json")

WORD = re.compile(r"[\w.]*")
TREE = re.compile(r'[\w\s.,:"\\\[\]{}]*')
TREE_WORDS = REQUIRED | {"static", "type", "context", "children_spec", "null"}
TREE_WORDS |= {"builtins.tuple", "builtins.list", "builtins.dict"}
OPERATORS = re.compile(
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.sym_\w+"
)
TENSOR_OPERATORS = re.compile(r"torch\.ops\.(aten|ragged)\.(?!from_file)(?!\w*unsafe)(\w+)\.(\w+)")
SIZES = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp),
    *(ast.UnaryOp, ast.Compare, ast.BoolOp, ast.operator, ast.unaryop, ast.cmpop, ast.boolop),
)
SIZE_FUNCTIONS = re.compile(
    "Symbol|Integer|Rational|Float|Add|Mul|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv"
    "|ModularIndexing|Where|And|Or|Not|Abs|Equality|Unequality|Eq|Ne|Lt|Le|Gt|Ge|StrictLessThan"
    "|LessThan|StrictGreaterThan|GreaterThan|IntTrueDiv|FloatTrueDiv|ToFloat|TruncToInt"
)


def without_code(content: bytes) -> bytes:
    """Return a program's file without anything that torch would execute while reading.

    Its operators are torch's or this package's, and run when it is called; so it can still take
    any amount of memory and time.

    Raises:
        ValueError, zipfile.BadZipFile, pickle.UnpicklingError: it is damaged, or holds more than a
            program that `export_model` wrote.
    """
    cleaned = io.BytesIO()
    # Rewritten, so that torch's reader of archives reads the same as this one.
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(cleaned, "w") as new:
        members = old.infolist()
        if len({member.filename for member in members}) != len(members):
            raise ValueError("a name is in it twice")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise ValueError(f"{member.filename[:80]!r} is packed, which torch does not do")
            name = member.filename.partition("/")[2]
            new.writestr(member.filename, _cleaned(name, old.read(member)))
    return cleaned.getvalue()


def _cleaned(name: str, content: bytes) -> bytes:
    if PROGRAM.fullmatch(name):
        program = json.loads(content)
        program.pop("guards_code", None)  # `Exported` checks the shapes
        return json.dumps(_checked(program)).encode()
    if PAYLOADS.fullmatch(name):
        for entry in json.loads(content)["config"].values():
            path = entry["path_name"]
            if entry["use_pickle"] is not False or not re.fullmatch(r"(weight|tensor)_\d+", path):
                raise ValueError(f"it holds the object {str(path)[:80]!r}")
    elif PICKLES.fullmatch(name):
        torch.load(io.BytesIO(content), weights_only=True)
    elif not PLAIN.fullmatch(name):
        raise ValueError(f"it holds {name[:80]!r}")
    return content


def _checked(value: Any, key: str = "") -> Any:
    """Return a part of the program's text without metadata; refuse any unknown name in it."""
    if isinstance(value, dict):
        if "target" in value and "inputs" in value:
            _check_operator(value["target"])
            value["metadata"] = {}
        return {_word(name): _checked(entry, name) for name, entry in value.items()}
    if isinstance(value, list):
        return [_checked(entry, key) for entry in value]
    if not isinstance(value, str) or key in ("as_string", "as_strings", "torch_version"):
        return value
    if key == "as_operator":
        _check_operator(value)
    if key == "expr_str":
        _check_size(value)
    elif key in ("in_spec", "out_spec"):
        _check_tree(value)
    else:
        _word(value)
    return value


def _word(text: str) -> str:
    if not WORD.fullmatch(text):
        raise ValueError(f"it says {text[:80]!r}, which is no name")
    return text


def _check_operator(name: Any) -> None:
    """Refuse to call anything but an operator of tensors, or arithmetic of sizes."""
    match = TENSOR_OPERATORS.fullmatch(str(name))
    if match:
        packet: Any = torch.ops
        for part in match.groups():
            packet = getattr(packet, part, None)
        if isinstance(packet, torch._ops.OpOverload):
            return
    if not OPERATORS.fullmatch(str(name)):
        raise ValueError(f"it calls {str(name)[:80]!r}")


def _check_size(text: str) -> None:
    """Refuse an expression that is more than arithmetic of named sizes."""
    for node in ast.walk(ast.parse(text, mode="eval")):
        plain = isinstance(node, SIZES) and not isinstance(node, ast.Pow)
        if isinstance(node, ast.Call):
            plain = isinstance(node.func, ast.Name) and bool(SIZE_FUNCTIONS.fullmatch(node.func.id))
            plain = plain or _is_small_power(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            plain = node.value.isidentifier()
        if not plain:
            raise ValueError(f"it has the size {text[:80]!r}")


def _is_small_power(call: ast.Call) -> bool:
    """Whether a power is small, unlike nested powers, which would fill the memory."""
    match call:
        case ast.Call(ast.Name("Pow"), [base, ast.Call(ast.Name("Integer"), [exponent], [])], []):
            names = {node.id for node in ast.walk(base) if isinstance(node, ast.Name)}
            return ast.unparse(exponent) in ("2", "3", "4") and "Pow" not in names
    return False


def _check_tree(text: str) -> None:
    """Refuse a structure of inputs or outputs that is more than the names of a forecast's."""
    words = set(re.findall(r"[A-Za-z_][\w.]*", text))
    if not TREE.fullmatch(text) or not words <= TREE_WORDS:
        raise ValueError(f"it has the inputs {text[:80]!r}")
