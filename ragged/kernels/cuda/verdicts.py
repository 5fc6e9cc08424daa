"""Whether a kernel may be used on a GPU: nothing that was not measured there is trusted.

At its first use for a shape class on a device a kernel is compared with the reference on short
rows, and timed beside what would run instead. A kernel that is wrong is told of and never used;
one that is slower is not used. The verdict is kept beside the compiled kernels.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple, Protocol

from ragged.errors import KernelError
from ragged.kernels.cuda import cubins
from ragged.kernels.libraries import cache_folder, read_content, seal

ROUNDS = 5  # of timing; the median counts
MOST_TIMED = 2**20  # steps of all rows: more of them tell no more, and would not find room
SMALL = (3, 0, 7, 1, 3, 2, 0, 5)  # lengths of the rows that are checked, again and again
INPUTS = 8  # features of the batches
ALLOWED = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 2e-2}  # of the greatest value, and of 0.1
FASTER, SLOWER, WRONG, FAILED = "faster", "slower", "wrong", "failed"
CUDNN = "cuDNN"  # what the sources of a question begin with where they are not ours


class Question(NamedTuple):
    """What a verdict holds for.

    Args:
        backend: whose other implementations it is timed beside, with its version.
        device: the GPU's name.
        driver: the driver's version.
        sources: digest of the kernels' sources and compiler, or cuDNN with whoever binds it.
        cell: of the layer.
        hidden: its hidden units.
        dtype: of its arrays.
        batch: rows, as `shape_class` has them.
        width: steps, as `shape_class` has them.
    """

    backend: str
    device: str
    driver: int
    sources: str
    cell: str
    hidden: int
    dtype: str
    batch: int
    width: int

    @property
    def file(self) -> str:
        """The name of its verdict's file."""
        return f"verdict-{hashlib.sha256(repr(tuple(self)).encode()).hexdigest()[:16]}.json"

    @property
    def is_cudnn(self) -> bool:
        """Whether it is about cuDNN, not about a kernel of ours."""
        return self.sources.startswith(CUDNN)


class Verdict(NamedTuple):
    """What came of a trial.

    Args:
        outcome: FASTER, SLOWER, WRONG, or FAILED where the trial ended in an error.
        error: the greatest beside the reference, in units of what is allowed.
        kernel, other: seconds of either; 0 where it was not timed.
    """

    outcome: str
    error: float
    kernel: float = 0.0
    other: float = 0.0

    @property
    def trusted(self) -> bool:
        """Whether the kernel is to run."""
        return self.outcome == FASTER

    @property
    def reason(self) -> str | None:
        """Why the kernel is not to run; None where it is.

        >>> Verdict(SLOWER, 0.1, kernel=3.0, other=2.0).reason
        'on this GPU they take 1.50 times as long as what runs instead'
        """
        if self.trusted:
            return None
        if self.outcome == SLOWER:
            ratio = self.kernel / self.other
            return f"on this GPU they take {ratio:.2f} times as long as what runs instead"
        return "they are wrong on this GPU" if self.outcome == WRONG else "they failed on this GPU"


class Trial(Protocol):
    """What a backend runs for a verdict, forward and backward."""

    def find_error(self) -> float:
        """Return the greatest error on a small batch, in units of what is allowed."""
        ...

    def time_kernel(self) -> float:
        """Return the seconds that the kernel takes for the shape class."""
        ...

    def time_other(self) -> float:
        """Return the seconds that what would run instead takes."""
        ...


def shape_class(batch: int, width: int) -> tuple[int, int]:
    """Round a shape up, so that few trials serve all batches; lengths stay on the device.

    Of many rows the width goes no further than a trial can be held for.

    >>> shape_class(48, 300), shape_class(100_000, 3000)
    ((64, 512), (131072, 8))
    """
    rows, steps = (1 << max(size - 1, 0).bit_length() for size in (batch, width))
    return rows, min(steps, max(1, MOST_TIMED // rows))


def checked_lengths(batch: int) -> tuple[list[int], list[int]]:
    """Return the lengths of the batches that are checked: the smallest and the largest of a class.

    Which kernel runs depends on the rows, but no class has more than two.

    >>> [len(lengths) for lengths in checked_lengths(64)]
    [33, 64]
    """
    smallest, largest = (list(islice(cycle(SMALL), rows)) for rows in (batch // 2 + 1, batch))
    return smallest, largest


class Judge:
    """Gives verdicts: known, kept, or by a trial."""

    def __init__(self) -> None:
        self._known: dict[Question, Verdict] = {}

    def knows(self, question: Question) -> bool:
        """Whether a verdict needs no trial any more."""
        if question not in self._known and (kept := _read(question)) is not None:
            self._judge(question, kept)
        return question in self._known

    def decide(self, question: Question, trial: Trial) -> Verdict:
        """Return the verdict on a kernel; a trial is held where there is none yet.

        A kernel that is wrong is told of once a process.
        """
        if not self.knows(question):
            self._judge(question, _try(question, trial))
        return self._known[question]

    def _judge(self, question: Question, verdict: Verdict) -> None:
        self._known[question] = verdict
        if verdict.outcome == WRONG:
            found = f"its error is {verdict.error:.3g} times what is allowed"
            where = f"is wrong on {question.device}, so it is never used there"
            _warn(question, f"{where}: {found}. Please report it.")


def read_verdicts() -> list[tuple[Question, Verdict]]:
    """Read the verdicts that are kept on kernels of these sources, and on cuDNN's.

    >>> isinstance(read_verdicts(), list)
    True
    """
    try:
        with cache_folder() as folder:
            found = [_parse(path) for path in sorted(folder.glob("verdict-*.json"))]
        ours = cubins.digest_sources()
    except OSError:
        return []
    return [pair for pair in found if pair and (pair[0].is_cudnn or pair[0].sources == ours)]


def describe() -> Iterator[str]:
    """Say where kernels for GPUs come from, and what came of their trials, a line each.

    >>> all(describe())
    True
    """
    try:
        yield cubins.describe()
    except OSError as error:
        yield f"none: {error}"
    for question, verdict in read_verdicts():
        layer = f"{question.cell} {question.hidden} {question.dtype}"
        layer += f" by {question.sources}" if question.is_cudnn else ""
        shape = f"{question.batch} x {question.width} on {question.device}"
        found = "wrong, never used"
        if verdict.outcome != WRONG:
            ratio = verdict.other / verdict.kernel
            used = "used" if verdict.trusted else "unused"
            found = f"{ratio:.2f} times as fast as {question.backend} without it, {used}"
        yield f"{layer}, {shape}: {found}"


def _try(question: Question, trial: Trial) -> Verdict:
    try:
        error = trial.find_error()
        verdict = _time(error, trial) if error <= 1 else Verdict(WRONG, error)  # NaN is wrong too
    except KernelError as problem:  # it may lack memory now, or a newer driver: nothing is kept
        _warn(question, f"failed on {question.device}, so it is not used now. {problem}")
        return Verdict(FAILED, math.inf)
    _keep(question, verdict)
    return verdict


def _time(error: float, trial: Trial) -> Verdict:
    pairs = [(trial.time_kernel(), trial.time_other()) for _ in range(ROUNDS)]
    kernel, other = map(statistics.median, zip(*pairs, strict=True))
    return Verdict(FASTER if kernel <= other else SLOWER, error, kernel, other)


def _warn(question: Question, message: str) -> None:
    layer = f"{question.cell} with {question.hidden} hidden units in {question.dtype}"
    warnings.warn(f"ragged: the kernel for {layer} {message}", RuntimeWarning, stacklevel=4)


def _keep(question: Question, verdict: Verdict) -> None:
    """Keep a verdict for other processes; where it cannot be kept, each holds a trial."""
    content = json.dumps({"question": question._asdict(), "verdict": verdict._asdict()})
    try:
        with cache_folder() as folder, tempfile.TemporaryDirectory(dir=folder) as made:
            path = Path(made) / "verdict.json"
            path.write_text(content)
            seal(path, folder / question.file)
    except OSError:
        return


def _read(question: Question) -> Verdict | None:
    try:
        with cache_folder() as folder:
            found = _parse(folder / question.file)
    except OSError:
        return None
    return found[1] if found else None


def _parse(path: Path) -> tuple[Question, Verdict] | None:
    """Read a verdict's file; None if it is damaged, or others could have written it."""
    content = read_content(path)
    if content is None:
        return None
    try:
        fields = json.loads(content)
        return Question(**fields["question"]), Verdict(**fields["verdict"])
    except (ValueError, KeyError, TypeError):
        return None
