"""Which backend does the work: precedence, threads, contexts, refusals."""

from __future__ import annotations

import asyncio
import importlib
import re
import sys
import threading
import types

import numpy as np
import pytest

import ragged
from ragged.backend import FRAMEWORKS, _is_installed, _loaded, load_backend
from ragged.errors import BackendError, DtypeError, MixedFrameworksError, RaggedError
from ragged.protocol import MEMBERS

pytestmark = pytest.mark.usefixtures("no_backend_chosen")


@pytest.fixture
def both() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("flax")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    def _module(path: str, **members: object) -> types.ModuleType:
        made = types.ModuleType(path)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, path, made)
        return made

    yield _module
    for name in [name for name in _loaded if name.startswith("third_")]:
        del _loaded[name]


def chosen() -> str:
    return ragged.get_backend().name


@pytest.mark.usefixtures("both")
def test_use_backend_wins_over_set_backend_over_the_variable(monkeypatch):
    monkeypatch.setenv("RAGGED_BACKEND", "jax")
    assert chosen() == "jax"
    ragged.set_backend("torch")
    assert chosen() == "torch"
    with ragged.use_backend("jax") as backend:
        assert backend.name == chosen() == "jax"
        ragged.set_backend("torch")
        assert chosen() == "jax"
    assert chosen() == "torch"


@pytest.mark.usefixtures("both")
def test_nothing_chosen_and_two_installed_says_how_to_choose():
    text = (
        "get_backend(): no backend is chosen and 2 are installed (jax, torch). Choose one: "
        "ragged.set_backend('jax'), `with ragged.use_backend('jax'):` or RAGGED_BACKEND=jax."
    )
    with pytest.raises(BackendError, match=re.escape(text)):
        ragged.get_backend()


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_the_only_one_installed_is_taken(monkeypatch, name):
    pytest.importorskip("torch" if name == "torch" else "flax")
    monkeypatch.setattr("ragged.backend.available_backends", lambda: (name,))
    assert chosen() == name
    monkeypatch.setattr("ragged.backend.available_backends", lambda: ())
    with pytest.raises(BackendError, match=r"no backend is installed.*pip install"):
        ragged.get_backend()


@pytest.mark.usefixtures("both")
def test_blocks_nest_and_are_undone_on_an_error():
    ragged.set_backend("torch")

    def fails() -> None:
        with ragged.use_backend("jax"):
            with ragged.use_backend("torch"):
                assert chosen() == "torch"
            assert chosen() == "jax"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert chosen() == "torch"


@pytest.mark.usefixtures("both")
def test_a_refused_name_leaves_the_choice_as_it_was():
    ragged.set_backend("torch")
    with pytest.raises(BackendError):
        ragged.set_backend("tensorflow")
    with pytest.raises(BackendError), ragged.use_backend("tensorflow"):
        pytest.fail("entered")
    assert chosen() == "torch"


@pytest.mark.usefixtures("both")
def test_threads_see_the_process_default_and_not_another_threads_block():
    ragged.set_backend("torch")
    seen: list[str] = []
    with ragged.use_backend("jax"):
        thread = threading.Thread(target=lambda: seen.append(chosen()))
        thread.start()
        thread.join()
    assert seen == ["torch"]


@pytest.mark.usefixtures("both")
def test_the_default_set_in_a_thread_is_seen_outside():
    ragged.set_backend("torch")
    thread = threading.Thread(target=ragged.set_backend, args=("jax",))
    thread.start()
    thread.join()
    assert chosen() == "jax"


@pytest.mark.usefixtures("both")
def test_tasks_choose_for_themselves():
    ragged.set_backend("torch")

    async def task(name: str) -> str:
        with ragged.use_backend(name):
            await asyncio.sleep(0)
            return chosen()

    async def run() -> list[str]:
        return await asyncio.gather(task("jax"), task("torch"), task("jax"))

    assert asyncio.run(run()) == ["jax", "torch", "jax"]
    assert chosen() == "torch"


def test_unknown_names_are_refused_with_the_known_ones(monkeypatch):
    text = r"set_backend\(\): `name` is 'tensorflov' \(.*\); expected one of .*'jax'.* with"
    for choose in (ragged.set_backend, load_backend):
        with pytest.raises(BackendError, match=text) as caught:
            choose("tensorflov")
        assert str(caught.value).endswith("Check the spelling, or install the module.")
    monkeypatch.setenv("RAGGED_BACKEND", "tensorflov")
    with pytest.raises(BackendError, match=text):
        ragged.get_backend()


@pytest.mark.parametrize("name", ["jax", "ragged_jax"])
def test_a_backend_without_its_framework_names_the_extra(monkeypatch, name):
    monkeypatch.setattr(ragged.backend, "_loaded", {})
    monkeypatch.setitem(sys.modules, "ragged_jax", None)
    with pytest.raises(BackendError, match=r"Install the extra: .*'ragged-sequences\[jax\]'"):
        ragged.set_backend(name)


def test_an_incomplete_module_is_told_all_it_lacks_at_once(module):
    given = {"name", "framework", "owns"}
    module("third_party", **dict.fromkeys(given, print))
    with pytest.raises(BackendError, match="backend 'third_party' lacks") as caught:
        ragged.set_backend("third_party")
    listed = re.search(r"lacks (.*); expected every member", str(caught.value)).group(1)
    assert listed.split(", ") == [name for name in MEMBERS if name not in given]
    assert {"run_recurrent", "TrainingStep", "xp", "predict"} <= set(MEMBERS)
    assert not any(name.startswith("_") for name in MEMBERS)


def test_a_complete_module_is_taken_by_its_import_path(module):
    module("third_whole", **{**dict.fromkeys(MEMBERS, print), "name": "whole"})
    ragged.set_backend("third_whole")
    assert chosen() == "whole"


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_the_backends_have_what_the_protocol_names(name):
    pytest.importorskip("torch" if name == "torch" else "flax")
    backend = load_backend(name)
    assert backend.name == name
    for member in MEMBERS:
        assert hasattr(backend, member)
        assert member in backend.__all__
    assert set(ragged.available_backends()) >= {name}


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize(
    "call", ["mse", "align", "lstm", "lstm's second", "lstm's state", "pack", "layer", "model"]
)
def test_mixed_frameworks_are_refused(call):
    import jax.numpy as jnp
    import torch

    x, y = torch.zeros(2, 3, 1), jnp.zeros((2, 3, 1))
    lengths, h = jnp.asarray([1, 2]), torch.zeros(1, 2, 2)
    with ragged.use_backend("torch"):
        layer = ragged.LSTM(1, 2)
        model = ragged.models.EncoderDecoderLSTM(1, 1, hidden_size=2)
    parameters = dict(layer.named_parameters())
    calls = {
        "mse": lambda: ragged.losses.mse(x, y),
        "align": lambda: ragged.align_encoder_sequences(x, lengths),
        "lstm": lambda: ragged.lstm({"weight_ih_l0": y}, x, [1, 2]),
        "lstm's second": lambda: ragged.lstm({**parameters, "weight_hh_l0": jnp.zeros((8, 2))}, x),
        "lstm's state": lambda: ragged.lstm(parameters, x, None, (h, jnp.zeros((1, 2, 2)))),
        "pack": lambda: ragged.pack_sequences(x, lengths),
        "layer": lambda: layer(y),
        "model": lambda: model(x, y),
    }
    with pytest.raises(MixedFrameworksError, match=r"arrays of several frameworks: ") as caught:
        calls[call]()
    text = str(caught.value)
    assert " of torch" in text
    assert " of jax" in text
    assert text.endswith("expected one framework. Convert with numpy.asarray() first.")
    assert isinstance(caught.value, (RaggedError, TypeError))


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize("make", [np.asarray, list])
def test_lists_and_numpy_go_to_the_chosen_backend(name, make):
    x, lengths = [[[1.0], [2.0]], [[3.0], [0.0]]], [2, 1]
    with ragged.use_backend(name) as backend:
        assert backend.owns(ragged.align_encoder_sequences(make(x), make(lengths)))
        assert backend.owns(ragged.create_padding_mask(make(lengths)))
        assert backend.owns(ragged.losses.mse(make(x), make(x)))
        assert backend.owns(ragged.LSTM(1, 2))


@pytest.mark.usefixtures("both")
def test_an_arrays_own_framework_wins_over_the_choice():
    import jax.numpy as jnp
    import torch

    with ragged.use_backend("torch"):
        y = ragged.flip_sequences(jnp.zeros((1, 2)), [1])
        assert load_backend("jax").owns(y)
        assert load_backend("jax").owns(ragged.losses.mse(jnp.zeros((1, 2)), np.zeros((1, 2))))
    with ragged.use_backend("jax"):
        y = ragged.flip_sequences(torch.zeros(1, 2), [1])
        assert load_backend("torch").owns(y)


@pytest.mark.usefixtures("both")
def test_what_a_framework_has_beside_plain_arrays_is_refused_by_name():
    import jax.numpy as jnp
    import torch
    from jax.experimental import sparse

    others = {
        "to_dense": torch.ones(2, 3).to_sparse(),
        "to_padded_tensor": torch.nested.as_nested_tensor([torch.ones(3)], layout=torch.jagged),
        "todense": sparse.BCOO.fromdense(jnp.ones((2, 3))),
    }
    for remedy, other in others.items():
        with pytest.raises(
            DtypeError, match=rf"mse\(\): `prediction` is .* Convert it by {remedy}"
        ):
            ragged.losses.mse(other, np.ones((2, 3)))


def test_a_folder_named_like_a_framework_is_none(tmp_path, monkeypatch):
    (tmp_path / "no_such_framework").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FRAMEWORKS, "ragged", "no_such_framework")
    is_installed = _is_installed.__wrapped__
    assert not is_installed("ragged")
    (tmp_path / "no_such_framework" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert is_installed("ragged")
