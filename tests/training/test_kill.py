"""A process killed at any moment: what it was writing is whole, and its run ends the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("safetensors")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills forks by Linux's clocks")

# Writes a checkpoint over another in a fork that ends at the nth thing it asks of the file system:
# at once, as kill -9 ends it, or by an error there.
WRITING = """
import contextlib, os, sys
from pathlib import Path
import numpy as np
from ragged.io import checkpoint
from ragged.io import safe_yaml
from ragged.io.checkpoint import Checkpoint
import safetensors.numpy

EVENTS = {"open", "os.rename", "os.mkdir", "os.chmod", "os.remove", "os.rmdir"}
STOPPED = 9
end, root = sys.argv[1], Path(sys.argv[2])

def content(value):
    return Checkpoint({"w": np.full(3, value, np.float32)}, {"value": value}, {"value": value})

def stop(after):
    def hook(event, arguments):
        left[0] -= event in EVENTS
        if left[0] == 0 and event in EVENTS:
            if end == "kill":
                os._exit(STOPPED)
            raise OSError(28, "No space left on device")
    left = [after]
    return left, hook

def write_stopped(path, after):
    child = os.fork()
    if child == 0:
        left, hook = stop(after)
        sys.addaudithook(hook)
        with contextlib.suppress(OSError):
            checkpoint.write(path, content(2.0))
        os._exit(STOPPED if left[0] <= 0 else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

checkpoint.write(root / "warm", content(0.0))
seen, after, status = [], 0, STOPPED
while status:
    after += 1
    path = root / str(after) / "last"
    checkpoint.write(path, content(1.0))
    status = write_stopped(path, after)
    found = checkpoint.read(path)
    value = found.state["value"]
    assert found.model == {"value": value} and (found.parameters["w"] == value).all(), after
    seen.append(value)
    if end == "error" and value == 1.0:
        assert os.listdir(path.parent) == ["last"], os.listdir(path.parent)
    checkpoint.write(path, content(3.0))
    assert checkpoint.read(path).state["value"] == 3.0
    assert os.listdir(path.parent) == ["last"], os.listdir(path.parent)
print(*seen)
"""

# Trains in forks, killed at moments spread evenly over a whole run and shifted by chance, by the
# processor's time, which other work on the machine does not take; then each run is resumed in
# another fork. The configuration is parsed once, which takes as long as many epochs.
TRAINING = """
import contextlib, os, random, signal, sys, threading, time, traceback
from pathlib import Path
from tqdm import tqdm
from ragged.cli import commands
from ragged.cli import main as cli
from ragged.report import figures
from ragged.runs.folder import read_config

tqdm.monitor_interval = 0  # a thread, which a fork would lose
tqdm.set_lock(threading.RLock())  # its own is shared by forks, and a killed one may hold it
assert figures.save_loss_curves and figures.save_forecasts
figures.save_loss_curves = figures.save_forecasts = lambda *a: None  # most of a tiny run's time
root, count, options = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]

def start(command, *arguments):
    child = os.fork()
    if child == 0:
        os._exit(run(command, *arguments))
    return child

def run(command, *arguments):
    try:
        nothing = open(os.devnull, "w")
        with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            command(*arguments)
            return 0
    except BaseException:
        traceback.print_exc()
        return 1

def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def timed(child):
    _, status, used = os.wait4(child, 0)
    assert status == 0
    return used.ru_utime + used.ru_stime

def sleep_until(child, moment):
    with contextlib.suppress(OSError):  # it has ended
        while time.clock_gettime(~child << 3 | 2) < moment:  # clock_getcpuclockid(3) of Linux
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.001)

def train(runs):
    config.runs = str(runs)
    return commands.train(parser, config)

run(cli.main, [*options, "--runs", str(root / "warm")])  # imports what a run imports
parser = cli.train_parser()
(warm,) = (root / "warm").glob("*/*")
config = read_config(warm, parser)
whole = timed(start(train, root / "unbroken"))
moments = random.Random(0)
for number in range(count):
    runs = root / str(number)
    child = start(train, runs)
    sleep_until(child, whole * (number + moments.random()) / count)
    os.kill(child, signal.SIGKILL)
    status = end(child)
    found = list(runs.glob("*/*"))
    saved = bool(found) and (found[0] / "checkpoints" / "last").exists()
    if found and (found[0] / "config.yaml").exists():
        status = end(start(commands.resume, found[0], parser))
        print(number, status, saved, found[0])
    else:
        print(number, "unborn", saved, runs)
"""


def helper(code: str, *arguments: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("how", ["kill", "error"])
def test_writing_stopped_anywhere_leaves_the_old_or_the_new_checkpoint(how, tmp_path):
    (line,) = helper(WRITING, how, tmp_path)
    seen = [float(value) for value in line.split()]
    assert len(seen) >= 20  # a write asks the file system for as many things
    if how == "kill":
        assert seen == sorted(seen)  # the old one up to a point, the new one from there on
    assert set(seen) == {1.0, 2.0}


def remains(run: Path) -> dict[str, object]:
    """All that a run leaves, without what tells the time or its place."""
    import json

    lines = (run / "metrics.jsonl").read_text().splitlines()
    timed = {"seconds", "tokens_per_second"}
    metrics = [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]
    files = {
        str(path.relative_to(run)): path.read_bytes()
        for path in [*run.glob("checkpoints/*/*"), run / "scores.json"]
    }
    return {"metrics": metrics, **files}


def test_a_run_killed_at_12_moments_always_ends_as_the_unbroken_one(need, tiny_arguments, tmp_path):
    need("torch")
    pytest.importorskip("jsonargparse")
    options = tiny_arguments(tmp_path, "torch", trainer__max_epochs=6)
    place = options.index("--runs")
    lines = helper(TRAINING, tmp_path, 12, *options[:place], *options[place + 2 :])
    (unbroken,) = (tmp_path / "unbroken").glob("*/*")
    expected = remains(unbroken)
    outcomes = [line.split(maxsplit=3) for line in lines]
    assert len(outcomes) == 12
    for number, status, _, run in outcomes:
        if status == "unborn":
            assert not list(Path(run).glob("*/*/config.yaml"))
            continue
        assert status == "0", number
        found = remains(Path(run))
        assert found.keys() == expected.keys(), number
        different = [name for name in expected if found[name] != expected[name]]
        assert not different, (number, different)
    assert sum(saved == "True" for _, _, saved, _ in outcomes) > 3, "killed too early"
    assert sum(saved == "False" for _, _, saved, _ in outcomes) > 0, "killed too late"
