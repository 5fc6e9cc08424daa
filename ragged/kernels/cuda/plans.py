"""How a kernel is cut to a GPU: what the compiler is told, and how much memory a launch needs.

The weights of a pass must stay in the registers and the shared memory of one cluster of blocks, for
they are read at every step. So the hidden size and the GPU decide how many blocks a cluster has, or
that there is no kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

from ragged.errors import KernelError

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}  # of `cells.hpp`
SUMS = {**GATES, "GRU": 4}  # of `cells.hpp`: a GRU's candidate has one with x and one with h
PASSES = ("Forward", "Backward")  # of `forward.cuh` and `backward.cuh`
STORED = {"float32": "float", "bfloat16": "Bfloat16", "float16": "Float16"}
ROWS = (1, 2, 4)  # that go through the weights together

WARP = 32
MOST_THREADS = 512  # of a block: 128 registers each
REGISTERS = 65536  # of a block
MOST_REGISTERS = 255  # of a thread
GRAIN = 128  # threads: registers are given to so many at once
OVERHEAD = 48  # registers of a thread beside weights and sums
OF_SHARED = 16  # more of them where weights lie in shared memory
BEST_WEIGHTS = 64  # in registers: more leave no room, fewer need more threads, which must meet
RESERVED = 1024  # bytes of a block's shared memory that the driver takes


class Gpu(NamedTuple):
    """What a kernel is compiled for.

    Args:
        capability: compute capability, such as (9, 0).
        shared: bytes of shared memory that a block may have.
        cluster: most blocks in a cluster.
    """

    capability: tuple[int, int]
    shared: int
    cluster: int

    @property
    def architecture(self) -> str:
        """Its name for the compiler."""
        return "sm_{}{}".format(*self.capability)

    @classmethod
    def of(cls, capability: tuple[int, int]) -> Gpu:
        """Give what the CUDA programming guide says of a compute capability.

        >>> Gpu.of((9, 0))
        Gpu(capability=(9, 0), shared=232448, cluster=16)
        >>> Gpu.of((8, 6)).cluster
        1
        """
        kibibytes = {(7, 5): 64, (8, 0): 164, (8, 7): 164, (9, 0): 228, (10, 0): 228, (10, 3): 228}
        cluster = 1 if capability < (9, 0) else 16 if capability in kibibytes else 8
        return cls(capability, kibibytes.get(capability, 100) * 1024 - RESERVED, cluster)


class Plan(NamedTuple):
    """A kernel, as the compiler is told of it; the headers say what each number means."""

    cell: str
    direction: str
    dtype: str
    gpu: Gpu
    hidden: int
    padded: int
    cluster: int
    lanes: int
    group: int
    rows: int
    in_shared: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.padded // self.cluster // self.group * self.lanes

    @property
    def vectors(self) -> int:
        """How many sums a lane adds to, for a row."""
        return self.group * (GATES[self.cell] if self.direction == "Forward" else 1)

    @property
    def depth(self) -> int:
        """How many numbers a vector of weights has."""
        return self.padded * (1 if self.direction == "Forward" else GATES[self.cell])

    @property
    def in_registers(self) -> int:
        """How many weights a thread has in registers."""
        return self.vectors * (self.depth // self.lanes - 4 * self.in_shared)

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        weights = 4 * self.in_shared * self.vectors * self.threads
        return 4 * (2 * self.rows * self.depth + weights)

    @property
    def options(self) -> tuple[str, ...]:
        """What the compiler is told of it."""
        given = {
            "CELL": self.cell,
            "PASS": self.direction,
            "STORED": STORED[self.dtype],
            "HIDDEN": self.hidden,
            "PADDED": self.padded,
            "CLUSTER": self.cluster,
            "LANES": self.lanes,
            "GROUP": self.group,
            "ROWS": self.rows,
            "IN_SHARED": self.in_shared,
            "THREADS": self.threads,
        }
        return tuple(f"-D{name}={value}" for name, value in given.items())

    @property
    def fits(self) -> bool:
        """Whether a GPU has the registers, the memory and the threads for it."""
        quads, rest = divmod(self.depth, 4 * self.lanes)
        if rest or self.in_shared >= quads or self.lanes % (self.rows * self.group):
            return False
        if self.threads % WARP or self.threads > MOST_THREADS:
            return False
        registers = min(MOST_REGISTERS, REGISTERS // (-(-self.threads // GRAIN) * GRAIN))
        needed = self.in_registers + self.rows * self.vectors + OVERHEAD
        needed += OF_SHARED if self.in_shared else 0
        return needed <= registers and self.shared <= self.gpu.shared


def make_plan(
    cell: str, direction: str, hidden: int, *, gpu: Gpu, rows: int = 4, dtype: str = "float32"
) -> Plan:
    """Choose how a kernel is cut.

    A small cluster is best, for its blocks meet at every step; then weights in registers.

    Args:
        cell: one of `GATES`.
        direction: one of `PASSES`.
        hidden: hidden units.
        gpu: what it is compiled for.
        rows: one of `ROWS`; fewer are taken where no more have room.
        dtype: one of `STORED`: of the arrays; sums are float32.

    Raises:
        KernelError: there is no kernel for it.

    >>> plan = make_plan("LSTM", "Forward", 128, gpu=Gpu.of((9, 0)), rows=4)
    >>> plan.cluster, plan.threads, plan.in_registers
    (2, 512, 64)
    """
    if dtype not in STORED or cell not in GATES or direction not in PASSES or rows not in ROWS:
        got = f"{cell}, {direction}, {dtype}, {rows} rows at once"
        expected = f"one of {[*GATES]}, {[*PASSES]}, {[*STORED]}, {[*ROWS]}"
        remedy = "Name one of them."
        raise KernelError.of("make_plan", "cell, direction, dtype, rows", got, expected, remedy)
    found = [plan for plan in _plans(cell, direction, hidden, gpu, rows, dtype) if plan.fits]
    if hidden < 1 or not found:
        expected = f"a size whose weights fit into the registers of {gpu.cluster} block(s)"
        remedy = "Let another implementation run it."
        raise KernelError.of("make_plan", "hidden", hidden, expected, remedy)
    return min(found, key=_cost)


@cache
def has_plan(cell: str, hidden: int, gpu: Gpu) -> bool:
    """Whether both passes of a cell have a kernel.

    >>> has_plan("LSTM", 256, Gpu.of((9, 0))), has_plan("LSTM", 256, Gpu.of((8, 0)))
    (True, False)
    """
    try:
        return all(make_plan(cell, direction, hidden, gpu=gpu) for direction in PASSES)
    except KernelError:
        return False


def choose_rows(batch: int, clusters: int) -> int:
    """Choose how many rows go through a cluster together: no more than all clusters need.

    >>> [choose_rows(batch, 66) for batch in (1, 66, 67, 1000)]
    [1, 1, 2, 4]
    """
    return next((rows for rows in ROWS if rows * clusters >= batch), ROWS[-1])


@cache
def plan_launch(
    cell: str, direction: str, hidden: int, batch: int, gpu: Gpu, processors: int, dtype: str
) -> tuple[Plan, int]:
    """Choose a kernel for a batch, and how many clusters run it: no more than run at once.

    Raises:
        KernelError: there is no kernel for it.

    >>> plan, clusters = plan_launch("GRU", "Forward", 64, 300, Gpu.of((9, 0)), 132, "float32")
    >>> plan.rows, clusters
    (4, 75)
    """
    alone = make_plan(cell, direction, hidden, gpu=gpu, rows=1, dtype=dtype)
    rows = choose_rows(batch, max(1, processors // alone.cluster))
    plan = make_plan(cell, direction, hidden, gpu=gpu, rows=rows, dtype=dtype)
    return plan, min(-(-batch // plan.rows), max(1, processors // plan.cluster))


def _plans(
    cell: str, direction: str, hidden: int, gpu: Gpu, most_rows: int, dtype: str
) -> Iterator[Plan]:
    gates = GATES[cell]
    clusters = [size for size in (1, 2, 4, 8, 16) if size <= gpu.cluster]
    groups = (1,) if direction == "Forward" and gates > 1 else (4, 2, 1)
    several = [count for count in ROWS if count <= most_rows]
    for rows, cluster, lanes, group in product(several, clusters, (32, 16, 8, 4), groups):
        grain = max(cluster * group * WARP // lanes, 4 * lanes)
        padded = -(-hidden // grain) * grain
        plan = Plan(cell, direction, dtype, gpu, hidden, padded, cluster, lanes, group, rows, 0)
        for in_shared in range(plan.depth // lanes // 4):
            yield plan._replace(in_shared=in_shared)


def _cost(plan: Plan) -> tuple[int, ...]:
    """Order plans: what is compared first matters most."""
    away = abs(plan.in_registers - BEST_WEIGHTS)
    reads = 2 / plan.vectors  # a number from shared memory is multiplied with so many weights
    work = round(plan.padded**2 * (1 + reads))
    return -plan.rows, plan.in_shared, plan.cluster, work, away
