"""What a backend cannot do yet, with the reason and where its project tracks it.

A test named here must fail: one that passes is an error, so that no entry outlives its cause.
A third party's adapter lists its own in `Adapter.limits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Limit:
    """One thing a backend cannot do.

    Args:
        backend: its name.
        test: pattern of a test's name in the suite, "test_recurrent.py::test_gradients*".
        reason: what is missing, and where.
        link: where the backend's framework tracks it; "" if nowhere.
        dtypes: the dtypes it holds for; empty = all.
        devices: the devices it holds for; empty = all.
    """

    backend: str
    test: str
    reason: str
    link: str = ""
    dtypes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    def applies(self, backend: str, test: str, dtype: str, device: str) -> bool:
        """Whether a test is expected to fail.

        >>> limit = Limit("jax", "test_a.py::test_b*", "not written", dtypes=("float16",))
        >>> limit.applies("jax", "test_a.py::test_b[x-jax]", "float16", "cpu")
        True
        >>> limit.applies("jax", "test_a.py::test_b[x-jax]", "float32", "cpu")
        False
        """
        return (
            backend == self.backend
            # Square brackets are part of a test's name, not of the pattern.
            and fnmatchcase(test.replace("[", "("), self.test.replace("[", "("))
            and (not self.dtypes or dtype in self.dtypes)
            and (not self.devices or device in self.devices)
        )


KNOWN_LIMITS: tuple[Limit, ...] = ()
