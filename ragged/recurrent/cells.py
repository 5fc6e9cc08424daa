"""The cells of recurrent layers: how many gates, states and kept values each has.

Their equations are in `kernels/cells.hpp`, and in `recurrent/cells.py` of a backend.
"""

from __future__ import annotations

from typing import NamedTuple


class Cell(NamedTuple):
    """The cell of a recurrent layer.

    Args:
        mode: its name in `torch.nn.RNNBase`.
        name: of the layer.
        gates: blocks of `hidden_size` rows in its weights, in torch's order.
        states: those passed from step to step.
        kept: values of each hidden unit and token, beside h, that the forward pass saves for the
            backward pass.
        keeps_h: whether h is made of those alone, so that a backward pass needs no h.
    """

    mode: str
    name: str
    gates: int
    states: tuple[str, ...]
    kept: int
    keeps_h: bool = False

    @property
    def function(self) -> str:
        """The name of the function that runs it."""
        return self.name.lower()


CELLS = {
    cell.mode: cell
    for cell in (
        Cell("LSTM", "LSTM", gates=4, states=("h", "c"), kept=5, keeps_h=True),
        Cell("GRU", "GRU", gates=3, states=("h",), kept=4),
        Cell("RNN_TANH", "RNN", gates=1, states=("h",), kept=0),
        Cell("RNN_RELU", "RNN", gates=1, states=("h",), kept=0),
    )
}
NONLINEARITIES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}
