"""`ragged_jax.jit` computes what `jax.jit` does, and its memory stays between runs."""

from __future__ import annotations

import platform
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ragged_jax import compiling

CACHE, FOLDER = "jax_enable_compilation_cache", "jax_compilation_cache_dir"
WIDE = 2**20  # numbers of 4 MiB: nine of them are more than the C library keeps in one piece


@pytest.fixture(autouse=True)
def no_cache() -> Iterator[None]:
    """Keep no programs on disk, as the tests else do."""
    before = getattr(jax.config, CACHE)
    jax.config.update(CACHE, False)
    yield
    jax.config.update(CACHE, before)


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this is how glibc allocates")
def test_pages_stay_between_runs(capfd: pytest.CaptureFixture[str]) -> None:
    x, faults = jnp.ones(WIDE), {}
    for name, jit in {"ours": compiling.jit, "theirs": jax.jit}.items():
        run = jit(waves)
        jax.block_until_ready(run(x))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(8):
            jax.block_until_ready(run(x))
        faults[name] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults["ours"] < 0.8 * faults["theirs"], faults
    assert not capfd.readouterr().err


def test_no_piece_is_smaller_than_an_array(capfd: pytest.CaptureFixture[str]) -> None:
    def long(x: Any) -> Any:
        return jax.lax.fori_loop(0, 3, lambda _, y: jnp.sort(y * x[0]), jnp.repeat(x, 5)).sum()

    compiling.jit(long)(jnp.ones(WIDE))
    assert not capfd.readouterr().err  # XLA warns where a piece is too small for an array


def test_programs_that_are_kept_on_disk_have_one_block(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiling, "_compile", lambda _: pytest.fail("compiled with pieces"))
    before = getattr(jax.config, FOLDER)
    jax.config.update(CACHE, True)
    jax.config.update(FOLDER, str(before or tmp_path))
    try:
        assert compiling.jit(lambda x: x + 1)(1.0) == 2
    finally:
        jax.config.update(FOLDER, before)
