"""`ragged_jax.jit` computes what `jax.jit` does, and its memory stays between runs."""

from __future__ import annotations

import inspect
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from ragged_jax import compiling

CACHE, FOLDER = "jax_enable_compilation_cache", "jax_compilation_cache_dir"
SOONEST = "jax_persistent_cache_min_compile_time_secs"


@pytest.fixture(autouse=True)
def no_cache() -> Iterator[None]:
    """Keep no programs on disk, as the other tests do; JAX decides once for a process."""
    before = getattr(jax.config, CACHE)
    set_all({CACHE: False})
    yield
    set_all({CACHE: before})


def set_all(settings: dict[str, Any]) -> None:
    """Change JAX's settings; whether it has a cache on disk it decides anew."""
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def waves(x: Any, scale: Any = 1.0) -> Any:
    """Add up arrays that all stand in memory at once."""
    return sum(jax.lax.optimization_barrier([jnp.sin(k * scale * x) for k in range(1, 10)])).sum()


def test_numbers_are_those_of_jax_jit() -> None:
    x, gradient = jnp.linspace(0, 1, 7), jax.value_and_grad(waves)
    ours, theirs = compiling.jit(gradient), jax.jit(gradient)
    for scale in (2.0, np.float32(3), jnp.float32(4)):
        jax.tree.map(np.testing.assert_array_equal, ours(x, scale), theirs(x, scale))


def test_each_kind_of_arguments_and_each_setting_has_a_program() -> None:
    run = compiling.jit(lambda n, x, y: n * x + y, static_argnums=(0,))
    pair = jnp.arange(2.0)
    assert [run(n, pair, 1.0).tolist() for n in (2, 3, 2)] == [[1, 3], [1, 4], [1, 3]]
    assert run._cache_size() == 2
    run(2, pair, pair)
    run(2, {"x": pair}["x"], np.float32(1))  # not weakly typed as 1.0 is
    assert run._cache_size() == 4
    with jax.default_matmul_precision("float32"):
        run(2, pair, 1.0)
    assert run._cache_size() == 5


def test_traced_arguments_and_donated_ones() -> None:
    double = compiling.jit(lambda x: 2 * x, donate_argnums=(0,))
    assert jax.jit(lambda x: double(x) + 1)(jnp.ones(2)).tolist() == [3, 3]
    assert jax.grad(lambda x: double(x).sum())(jnp.ones(2)).tolist() == [2, 2]
    given = jnp.ones(2)
    assert double(given).tolist() == [2, 2]
    assert given.is_deleted()


def test_other_devices_and_other_versions_of_xla_have_jax_jits_programs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling, "_compile", lambda _: pytest.fail("compiled with pieces"))
    monkeypatch.setattr(compiling, "takes_pieces", lambda: False)
    assert compiling.jit(lambda x: x + 1)(1.0) == 2
    monkeypatch.undo()
    monkeypatch.setattr(compiling, "PIECES", "an_option_of_no_version")
    compiling.takes_pieces.cache_clear()
    try:
        assert not compiling.takes_pieces()
    finally:
        compiling.takes_pieces.cache_clear()


def test_no_piece_is_smaller_than_an_array(capfd: pytest.CaptureFixture[str]) -> None:
    def long(x: Any) -> Any:
        return jax.lax.fori_loop(0, 3, lambda _, y: jnp.sort(y * x[0]), jnp.repeat(x, 5)).sum()

    compiling.jit(long)(jnp.ones(2**20))  # 4 MiB, and 20 within
    assert not capfd.readouterr().err  # XLA warns where a piece is too small for an array


FAULTS = f"""
import resource
from typing import Any
import jax, jax.numpy as jnp
from ragged_jax import compiling

{inspect.getsource(waves)}
for jit in (compiling.jit, jax.jit):
    run, x = jit(waves), jnp.ones(2**20)  # nine arrays of 4 MiB: more than glibc keeps in one block
    for _ in range(20):  # each of XLA's threads may have memory of its own
        jax.block_until_ready(run(x))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        jax.block_until_ready(run(x))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults() -> list[int]:
    """Return the page faults of ours and of jax.jit's program, in a process of their own."""
    unset = "JAX_COMPILATION_CACHE_DIR", "TF_CPP_MIN_LOG_LEVEL"
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-W", "error", "-c", FAULTS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this is how glibc allocates")
def test_pages_stay_between_runs() -> None:
    """In most processes: which of glibc's arenas XLA's threads meet decides how many stay."""
    assert any(ours < 0.15 * theirs for ours, theirs in (page_faults() for _ in range(5)))


def test_programs_that_are_kept_on_disk_have_one_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_compile", lambda _: pytest.fail("compiled with pieces"))
    kept = {CACHE: True, FOLDER: str(tmp_path), SOONEST: 0}
    before = {name: getattr(jax.config, name) for name in kept}
    set_all(kept)
    try:
        assert compiling.jit(waves)(jnp.ones(3)) > 0
    finally:
        set_all(before)
    assert list(tmp_path.glob("jit_waves*"))  # XLA writes no program of several pieces
