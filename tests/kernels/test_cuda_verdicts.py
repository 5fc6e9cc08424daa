"""Which kernels are trusted on a GPU: the decisions, with trials that are played."""

import math
import shutil
import warnings

import pytest

from ragged.cli.main import main
from ragged.errors import KernelError
from ragged.kernels.cuda import cubins
from ragged.kernels.cuda.verdicts import (
    FAILED,
    FASTER,
    ROUNDS,
    SLOWER,
    WRONG,
    Judge,
    Question,
    describe,
    read_verdicts,
    shape_class,
)


class Played:
    """A trial whose results are given."""

    def __init__(self, error=0.1, kernel=1.0, other=2.0):
        self.error, self.kernel, self.other = error, kernel, other
        self.checks = self.timings = 0

    def find_error(self):
        self.checks += 1
        if self.error is KernelError:
            raise KernelError("refused")
        return self.error

    def time_kernel(self):
        self.timings += 1
        return self.kernel * (100 if self.timings == 1 else 1)  # the first run is slow

    def time_other(self):
        return self.other


class Unheld:
    """A trial that must not be held."""

    def __getattr__(self, name):
        raise AssertionError(name)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ragged"


@pytest.fixture
def question(folder):
    sources = cubins.digest_sources()
    return Question(
        "torch", "Played GPU", 13000, sources, "LSTM", 64, "float32", *shape_class(48, 300)
    )


def test_the_faster_one_is_taken_and_the_verdict_kept(question):
    trial = Played()
    verdict = Judge().decide(question, trial)
    assert (verdict.outcome, verdict.trusted, verdict.kernel) == (FASTER, True, 1)
    assert (trial.checks, trial.timings) == (1, ROUNDS)
    assert Judge().decide(question, Unheld()) == verdict  # another process


def test_a_slower_kernel_is_not_used(question):
    verdict = Judge().decide(question, Played(kernel=3))
    assert (verdict.outcome, verdict.trusted) == (SLOWER, False)


@pytest.mark.parametrize("error", [1.001, math.nan, math.inf])
def test_a_kernel_that_is_wrong_is_told_and_never_used(question, error):
    trial, judge = Played(error), Judge()
    with pytest.warns(RuntimeWarning, match="LSTM with 64 .*wrong on Played GPU.*never used"):
        verdict = judge.decide(question, trial)
    assert (verdict.outcome, verdict.trusted, trial.timings) == (WRONG, False, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not judge.decide(question, Unheld()).trusted
    with pytest.warns(RuntimeWarning, match="never used"):  # another process is told too
        assert not Judge().decide(question, Unheld()).trusted


def test_a_trial_that_fails_is_told_and_held_again_by_another_process(question):
    judge = Judge()
    with pytest.warns(RuntimeWarning, match="LSTM with 64 .*failed on Played GPU.*refused"):
        verdict = judge.decide(question, Played(KernelError))
    assert (verdict.outcome, verdict.trusted) == (FAILED, False)
    assert judge.decide(question, Unheld()) == verdict
    assert Judge().decide(question, Played()).trusted


@pytest.mark.parametrize(
    "changed",
    [
        {"backend": "jax"},
        {"device": "Other GPU"},
        {"driver": 1},
        {"sources": ""},
        {"cell": "GRU"},
        {"hidden": 65},
        {"dtype": "float16"},
        {"batch": 128},
        {"width": 1024},
    ],
)
def test_a_verdict_holds_for_what_was_tried_alone(question, changed):
    Judge().decide(question, Played())
    trial = Played(kernel=3)
    assert not Judge().decide(question._replace(**changed), trial).trusted
    assert trial.checks == 1


UNSAFE = {
    "others can write it": lambda path, other: path.chmod(0o666),
    "it is damaged": lambda path, other: path.write_bytes(path.read_bytes().replace(b"f", b"s")),
    "it is another's": lambda path, other: shutil.copy(other, path),
}


@pytest.mark.parametrize("why", UNSAFE)
def test_verdicts_that_others_could_have_written_are_not_believed(folder, question, why):
    other = question._replace(hidden=1)
    for each in (question, other):
        Judge().decide(each, Played())
    UNSAFE[why](folder / question.file, folder / other.file)
    trial = Played(kernel=3)
    assert not Judge().decide(question, trial).trusted
    assert trial.checks == 1


def test_where_verdicts_cannot_be_kept_every_process_tries(folder, question):
    folder.mkdir()
    folder.chmod(0o777)
    judge = Judge()
    assert judge.decide(question, Played()).trusted
    assert judge.decide(question, Unheld()).trusted
    assert not Judge().decide(question, Played(kernel=3)).trusted


def test_info_shows_the_verdicts_on_these_sources(question, capsys):
    Judge().decide(question, Played())
    Judge().decide(question._replace(sources="older", hidden=1), Played())
    with pytest.warns(RuntimeWarning):
        Judge().decide(question._replace(cell="GRU"), Played(2.0))
    Judge().decide(question._replace(backend="jax", sources="cuDNN of JAX 0"), Played(kernel=3))
    assert len(read_verdicts()) == 3
    lines = sorted(describe())
    assert lines[0] == "GRU 64 float32, 64 x 512 on Played GPU: wrong, never used"
    assert lines[1] == (
        "LSTM 64 float32 by cuDNN of JAX 0, 64 x 512 on Played GPU: "
        "0.67 times as fast as jax without it, unused"
    )
    assert lines[2] == (
        "LSTM 64 float32, 64 x 512 on Played GPU: 2.00 times as fast as torch without it, used"
    )
    assert main(["info"]) == 0
    assert f"on GPUs    {lines[1]}" in capsys.readouterr().out


def test_no_shape_is_no_class_of_its_own():
    assert [shape_class(*each) for each in [(0, 0), (1, 1), (5, 129)]] == [(1, 1), (1, 1), (8, 256)]
