"""Torch's switches of TF32 are turned for a block's duration, whatever other threads do."""

from __future__ import annotations

import threading

import pytest

torch = pytest.importorskip("torch")

from ragged_torch.precision import _read, allows_tf32, float32_products, use_tf32  # noqa: E402


@pytest.mark.parametrize("tf32", [True, False])
def test_the_switches_are_turned_and_turned_back(tf32):
    before = _read()
    with float32_products(tf32=tf32):
        assert [value in (True, "tf32") for value in _read()] == [tf32, tf32]
        with float32_products(tf32=False):
            assert not {True, "tf32"} & set(_read())
    assert _read() == before
    assert torch.backends.cudnn.allow_tf32, "the older names can be read"


def test_blocks_of_two_threads_may_overlap_in_any_order():
    before, inside, leave = _read(), threading.Event(), threading.Event()

    def other() -> None:
        with float32_products(tf32=True):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with float32_products(tf32=False):
        thread.start()
        assert inside.wait(10)
        assert not {True, "tf32"} & set(_read()), "the exact one has its way"
    leave.set()
    thread.join()
    assert _read() == before


def test_an_error_turns_them_back_and_the_wish_is_the_threads_own():
    before = _read()

    def fail() -> None:
        with use_tf32(True):
            assert allows_tf32()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not allows_tf32()
    assert _read() == before
