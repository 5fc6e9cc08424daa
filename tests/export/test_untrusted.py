"""Exported programs that are damaged, or made to do harm: nothing of them runs, all are refused."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import ragged
from ragged.errors import ArtefactError
from ragged.export.program import load_exported

pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]
FORMATS = {"torch": "torch", "stablehlo": "jax"}
PROGRAM = "models/model.json"
MARK = "RAGGED_PROGRAM_RAN"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small model's program in a format."""
    found = {}

    def export(format):
        if format not in found:
            path = tmp_path_factory.mktemp(format) / "model"
            with ragged.use_backend(FORMATS[format]) as backend:
                model = ragged.models.EncoderDecoderLSTM(2, 1, hidden_size=2, num_layers=1, seed=0)
                backend.export_model(model, path, format=format)
            found[format] = path.read_bytes()
        return found[format]

    return export


class Harm:
    """Sets an environment variable when it is unpickled."""

    def __reduce__(self):
        return exec, (CODE,)


CODE = "__import__('os').environ.__setitem__('RAGGED_PROGRAM_RAN', '1')"
SPEC = json.dumps(
    [1, {"type": "collections.defaultdict", "children_spec": [], "context": json.dumps(
        {"default_factory_module": "antigravity", "default_factory_name": "x", "dict_context": []}
    )}]
)  # fmt: skip


def in_program(edit):
    """Change the text of the program."""

    def change(members):
        program = json.loads(members[PROGRAM])
        edit(program["graph_module"], program["graph_module"]["graph"]["nodes"])
        members[PROGRAM] = json.dumps(program).encode()

    return change


def weights(members, **changed):
    name = "data/weights/model_weights_config.json"
    config = json.loads(members[name])
    next(iter(config["config"].values())).update(changed)
    members[name] = json.dumps(config).encode()


def pickled_weight(members):
    import torch

    content = io.BytesIO()
    torch.save(Harm(), content)
    members["data/weights/weight_0"] = content.getvalue()
    weights(members, use_pickle=True)


def pickled_constant(members):
    members["data/constants/opaque_obj_0"] = pickle.dumps(Harm())
    meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    config = {"config": {"x": meta}}
    members["data/constants/model_constants_config.json"] = json.dumps(config).encode()


def pickled_samples(members):
    import torch

    content = io.BytesIO()
    torch.save((Harm(),), content)
    members["data/sample_inputs/model.pt"] = content.getvalue()


def renamed(members):
    name = f'"past={CODE}"'
    members[PROGRAM] = members[PROGRAM].replace(b'"past"', name.encode())


def sized(text):
    """Make a size of the program this expression."""

    def edit(module, nodes):
        values = module["graph"]["tensor_values"].values()
        sizes = [each for value in values for each in value["sizes"] if "as_expr" in each]
        sizes[0]["as_expr"]["expr_str"] = text

    return in_program(edit)


HARM = {
    "a weight that is unpickled": pickled_weight,
    "a constant that is unpickled": pickled_constant,
    "examples that are unpickled": pickled_samples,
    "a weight from another place": lambda members: weights(members, path_name="../weight_0"),
    "code for a size": sized(CODE),
    "a size that fills the memory": sized("Pow(Integer(9), Integer(999999999))"),
    "a size that is a tower of powers": sized("Pow(Pow(Integer(9), Integer(4)), Integer(4))"),
    "code for a name": renamed,
    "a structure that imports": in_program(
        lambda module, nodes: module["module_call_graph"][0]["signature"].update(in_spec=SPEC)
    ),
    "a function of torch": in_program(lambda _, nodes: nodes[0].update(target="torch.hub.load")),
    "a function of Python": in_program(
        lambda _, nodes: nodes[0].update(target="_operator.methodcaller")
    ),
    "an operator that opens files": in_program(
        lambda _, nodes: nodes[0].update(target="torch.ops.aten.from_file.default")
    ),
    "what is no operator": in_program(
        lambda _, nodes: nodes[0].update(target="torch.ops.aten.add.__init__")
    ),
    "a compiled library": lambda members: members.update({"data/aotinductor/model/x.so": b""}),
}


def rewritten(content, change, compression=zipfile.ZIP_STORED):
    """A program's file with its members changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = {each.partition("/")[2]: old.read(each) for each in old.namelist()}
    change(members)
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", compression) as new:
        for name, each in members.items():
            new.writestr(f"archive/{name}", each)
    return found.getvalue()


@pytest.mark.parametrize("harm", HARM)
def test_what_would_run_while_torch_reads_is_refused(need, exported, tmp_path, monkeypatch, harm):
    need("torch")
    monkeypatch.setenv(MARK, "")
    path = tmp_path / "model.pt2"
    path.write_bytes(rewritten(exported("torch"), HARM[harm]))
    with pytest.raises(ArtefactError, match="is damaged or of another format"):
        load_exported(path, format="torch")
    assert os.environ[MARK] == ""
    assert "antigravity" not in sys.modules


def test_guards_and_origins_of_a_program_are_dropped(need, exported, tmp_path, monkeypatch):
    need("torch")
    monkeypatch.setenv(MARK, "")

    def change(members):
        program = json.loads(members[PROGRAM])
        program["guards_code"] = [CODE]
        for node in program["graph_module"]["graph"]["nodes"]:
            node["metadata"] = {"stack_trace": f'File "x", line 1, in f\n{CODE}', "custom": CODE}
        members[PROGRAM] = json.dumps(program).encode()

    content, found = exported("torch"), []
    for each in (content, rewritten(content, change)):
        (tmp_path / "model.pt2").write_bytes(each)
        run = load_exported(tmp_path / "model.pt2", format="torch")
        found.append(
            run(past=np.ones((2, 3, 2)), future=np.ones((2, 4, 1)), decoder_lengths=[4, 0])
        )
    np.testing.assert_array_equal(*found)
    assert os.environ[MARK] == ""


def test_a_packed_archive_is_refused(need, exported, tmp_path):
    need("torch")
    path = tmp_path / "model.pt2"
    path.write_bytes(rewritten(exported("torch"), lambda _: None, zipfile.ZIP_DEFLATED))
    with pytest.raises(ArtefactError, match="is packed"):
        load_exported(path, format="torch")


FUZZ = """
import sys
from pathlib import Path
import numpy as np
from ragged.errors import ArtefactError
from ragged.export.program import load_exported
path, format = Path(sys.argv[1]), sys.argv[2]
content, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
for case in range(24):
    data = bytearray(content)
    place = int(rng.integers(len(data)))
    if case % 4 == 0:
        data = data[:place]
    elif case % 4 == 1:
        data[place] ^= 1 << int(rng.integers(8))
    elif case % 4 == 2:
        data[place : place + 64] = rng.bytes(64)
    else:
        data = bytearray(rng.bytes(int(rng.integers(5000))))
    path.write_bytes(data)
    try:
        load_exported(path, format=format)
    except ArtefactError:
        refused += 1
print(refused)
"""


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_program_ends_no_process(need, exported, tmp_path, format):
    """Some bits of torch's file belong to nothing; JAX's has a digest of all."""
    need(FORMATS[format])
    path = tmp_path / "model"
    path.write_bytes(exported(format))
    command = [sys.executable, "-W", "ignore", "-c", FUZZ, str(path), format]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")  # it may quote damaged bytes
    assert int(done.stdout) >= {"torch": 12, "stablehlo": 24}[format]
