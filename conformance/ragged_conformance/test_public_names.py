"""Every public name has a case in this suite; a new one without fails here."""

import pytest

import ragged
from ragged.losses import MaskedLoss
from ragged_conformance.recording import COLLECTED, SUITE

# They return no numbers. `tests/test_backend.py` tests the choice of a backend.
WITHOUT_NUMBERS = {
    "RaggedError",
    "available_backends",
    "get_backend",
    "losses",
    "models",
    "set_backend",
    "use_backend",
}


def public_names() -> set[str]:
    """The names that a user can reach as `ragged.NAME`."""
    losses = {f"losses.{n}" for n, v in vars(ragged.losses).items() if isinstance(v, MaskedLoss)}
    models = {f"models.{name}" for name in ragged.models.__all__ if is_model(name)}
    return (set(ragged.__all__) | losses | models) - WITHOUT_NUMBERS


def is_model(name: str) -> bool:
    """Whether a name of `ragged.models` is a model rather than what models share."""
    value = getattr(ragged.models, name)
    return issubclass(value, ragged.models.Model) and value is not ragged.models.Model


def test_every_public_name_has_a_case(request: pytest.FixtureRequest) -> None:
    collected = request.config.stash[COLLECTED]
    if {path.stem for path in SUITE.glob("test_*.py")} - set(collected):
        pytest.skip("only a part of the suite was collected")
    proved = set().union(*collected.values())
    assert proved >= public_names(), "names without a case"
    assert proved <= public_names(), "names that are not public"
    assert set(ragged.__all__) >= WITHOUT_NUMBERS


def test_a_new_name_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ragged, "__all__", [*ragged.__all__, "new"])
    monkeypatch.setattr(ragged.losses, "newer", ragged.losses.mse, raising=False)
    assert {"new", "losses.newer"} <= public_names()
