"""All contestants of one case by name, "<framework> <what>", made when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks import ours, peers
from benchmarks.cases import Case
from benchmarks.floor import JaxFloor, torch_floor
from benchmarks.machine import FRAMEWORKS
from benchmarks.passes import JaxPass, Run, Work

TORCH = ("auto", "never", "always", "PackedSequence", "padded", "Keras", "floor")
JAX = ("auto", "never", "OptimizedLSTMCell", "LSTMCell", "lstm_ref", "Keras", "floor")
POLICIES = ("auto", "never", "always")


class Suite:
    """The contestants of one case.

    Args:
        case: sizes of the layer and the batch.
        device: "cpu" or "cuda".
        keras: a worker for each framework that Keras is to run on.
        frameworks: that see the device.
    """

    def __init__(
        self,
        case: Case,
        device: str,
        keras: Mapping[str, Any],
        frameworks: Sequence[str] = FRAMEWORKS,
    ) -> None:
        self.case, self.device, self.keras, self.frameworks = case, device, keras, frameworks
        self.work = Work(case, device)
        self._jax: dict[str, JaxPass] = {}

    def names(self) -> list[str]:
        """Everyone who can run here."""
        torch = [what for what in TORCH if what != "Keras" or "torch" in self.keras]
        jax = [what for what in JAX if what != "Keras" or "jax" in self.keras]
        jax += ["cuDNN"] if self.device == "cuda" else []
        names = [f"torch {what}" for what in torch] + [f"jax {what}" for what in jax]
        return [name for name in names if name.split()[0] in self.frameworks]

    def make(self, name: str, lengths: np.ndarray, backward: bool = True) -> Run:
        """Prepare a contestant for lengths."""
        framework, what = name.split(" ", 1)
        if what == "Keras":
            return self.keras[framework].run(self.case, lengths, backward)
        if framework == "torch":
            return self._make_torch(what, lengths, backward)
        if what == "floor":
            return self._jax_floor(lengths)
        made = self._jax_pass(what)
        return made(self._jax_lengths(what, lengths), self.work.factor(lengths), backward)

    def prepare(self, name: str, lengths: np.ndarray) -> Run:
        """Prepare a training pass as far as it goes without running, to see what a run needs."""
        framework, what = name.split(" ", 1)
        if framework == "torch":
            return self.make(name, lengths)
        made = self._jax_pass(what)
        return made.prepare(self._jax_lengths(what, lengths), self.work.factor(lengths))

    def twins(self, names: list[str], lengths: np.ndarray) -> dict[str, str]:
        """Name those of ours that come to the very same work as another: they need no own time."""
        twins: dict[str, str] = {}
        for framework in self.frameworks:
            found: dict[object, str] = {}
            for what in POLICIES:
                name = f"{framework} {what}"
                if name in names:
                    own = ours.batch_lengths(lengths, self.case, what)
                    program = ours.program_of(framework, self.case, own, self.device)
                    twin = found.setdefault(program, name)
                    twins |= {name: twin} if twin != name else {}
        return twins

    def programs(self) -> dict[str, int]:
        """How many training passes each of the JAX contestants has compiled so far."""
        return {f"jax {what}": made.programs for what, made in self._jax.items()}

    @cached_property
    def _ours_torch(self) -> Any:
        return ours.torch_layer(self.work)

    @cached_property
    def _lstm(self) -> Any:
        return peers.torch_lstm(self.work)

    @cached_property
    def _jax_floor(self) -> JaxFloor:
        return JaxFloor(self.case, self.device)

    def _make_torch(self, what: str, lengths: np.ndarray, backward: bool) -> Run:
        if what == "floor":
            return torch_floor(self.case, lengths, self.device)
        if what in POLICIES:
            own = ours.batch_lengths(lengths, self.case, what)
            return ours.torch_run(self._ours_torch, self.work, own, backward)
        make = peers.padded if what == "padded" else peers.packed_sequence
        return make(self._lstm, self.work, lengths, backward)

    def _jax_pass(self, what: str) -> JaxPass:
        from benchmarks import peers_jax

        makers: dict[str, Callable[[], JaxPass]] = {
            "lstm_ref": lambda: peers_jax.lstm_ref(self.work),
            "cuDNN": lambda: peers_jax.cudnn(self.work),
            "LSTMCell": lambda: peers_jax.flax_rnn(self.work, "LSTMCell"),
            "OptimizedLSTMCell": lambda: peers_jax.flax_rnn(self.work, "OptimizedLSTMCell"),
        }
        if what not in self._jax:  # a policy of ours has a pass of its own, to count its programs
            ours_too = what in POLICIES
            self._jax[what] = ours.jax_layer(self.work) if ours_too else makers[what]()
        return self._jax[what]

    def _jax_lengths(self, what: str, lengths: np.ndarray) -> Any:
        from benchmarks import peers_jax

        if what in POLICIES:
            return ours.batch_lengths(lengths, self.case, what)
        return peers_jax.lengths_for(self.work, lengths)
