"""A pretended "cuda:0" for a torch without CUDA: built, loaded before torch is, and counted.

Values are the CPU's, so that results equal its own; what is tested is how torch is used.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("pretended_device.cpp")
PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm")
OLDEST = (2, 9)  # with a switch of TF32 for each library and operation, which is read here
FLAGS = ("-w", "-shared", "-fPIC", "-std=c++20", "-O1")  # as fast to compile as -O0
TRACED = os.environ.get("PRETENDED_DEVICE_TRACE")  # a kind of event, whose origins are printed

counts: Counter[str] = Counter()
is_loaded = False


def reason_against() -> str | None:
    """Say why there can be no pretended device; None = there can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    version = importlib.metadata.version("torch")
    if not version.endswith("+cpu"):
        return "this build of torch may have CUDA's own operators"
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        return f"the pretended device needs torch {'.'.join(map(str, OLDEST))}"
    return None if shutil.which("g++") else "there is no g++ to build the pretended device"


def build() -> Path:
    """Compile the device for the installed torch, once for all later calls."""
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.origin is not None
    torch = Path(found.origin).parent
    made_of = f"{importlib.metadata.version('torch')} {torch} {FLAGS}"
    text = made_of.encode() + SOURCE.read_bytes()
    folder = Path(sys.prefix) / "pretended_device"
    library = folder / f"{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not library.exists():
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            path = Path(made) / library.name
            command = ["g++", *FLAGS, str(SOURCE), "-isystem", f"{torch}/include"]
            command += [f"-L{torch}/lib", "-lc10", "-ltorch_cpu"]
            subprocess.run([*command, f"-Wl,-rpath,{torch}/lib", "-o", str(path)], check=True)
            os.replace(path, library)
    return library


def load() -> None:
    """Make torch see the device, in this process alone and before torch is imported."""
    global is_loaded
    assert "torch" not in sys.modules, "the device has to be there when torch is imported"
    library = ctypes.CDLL(str(build()), ctypes.RTLD_GLOBAL)
    import torch

    from tests.cuda import played_cudnn, played_graphs

    library.listen(_hear)
    cuda: Any = torch.cuda
    cuda._lazy_init = cuda.synchronize = lambda *_: None
    cuda.is_available = cuda.is_bf16_supported = lambda *_, **__: True
    cuda.device_count, cuda.current_device = lambda: 1, lambda: 0
    cuda._exchange_device, cuda._maybe_exchange_device = lambda _: 0, lambda _: 0
    cuda.get_device_name = lambda *_: "a pretended device"
    cuda.manual_seed = torch.default_generator.manual_seed
    cuda.manual_seed_all = lambda _: None
    cuda.get_rng_state = lambda *_: torch.default_generator.get_state()
    cuda.set_rng_state = lambda *_: None
    torch.UntypedStorage.clone = _clone  # type: ignore[assignment]
    played_cudnn.play(note)
    played_graphs.play(note, counts)
    is_loaded = True


def _clone(storage: Any) -> Any:
    import torch

    whole = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    return whole.clone().untyped_storage()


@ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p)
def _hear(kind: bytes, name: bytes) -> None:
    note(kind.decode(), name.decode())


def note(kind: str, name: str) -> None:
    """Count an event of the device."""
    counts[kind] += 1
    if (name in PRODUCTS or name.startswith("cudnn")) and _takes_tf32(name):
        counts["TF32"] += 1
    if kind == TRACED:
        ours = [f for f in traceback.extract_stack() if "/ragged" in f.filename]
        print(kind, name, *(f"{Path(f.filename).name}:{f.lineno}" for f in ours[-4:]))


def _takes_tf32(name: str) -> bool:
    import torch

    backends = torch.backends
    products = backends.cuda.matmul if name in PRODUCTS else backends.cudnn.rnn
    return products.fp32_precision == "tf32"


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count what the device is asked for inside the block."""
    before, found = counts.copy(), Counter[str]()
    try:
        yield found
    finally:
        found.update({kind: counts[kind] - before[kind] for kind in counts})
