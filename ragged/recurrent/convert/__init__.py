"""Exact conversion of recurrent parameters between torch's names and flax, Keras and haiku.

The functions convert dicts of arrays, one cell at a time: a layer of a stack in one direction.
`from_*` returns the parameters of that layer by torch's names; merge them to those of a stack.
`to_*` selects a layer of a stack's dict. With torch's weights `(gates * hidden, features)`, gates
in the order i, f, g, o of an LSTM and r, z, n of a GRU, a step is

    LSTM  i, f, g, o = x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh
          c = sigmoid(f) * c + sigmoid(i) * tanh(g)
          h = sigmoid(o) * tanh(c)
    GRU   r, z = sigmoid(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)
          n = tanh(x @ weight_in.T + bias_in + r * (h @ weight_hn.T + bias_hn))
          h = (1 - z) * n + z * h
    RNN   h = tanh(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)

Where a library has one bias for torch's two, `to_*` adds them and `from_*` sets the other to 0; a
library's parameters are the same after `from_*` and `to_*`. Parameters that a cell cannot represent
are refused. Activations are assumed to be the defaults: haiku's VanillaRNN is torch's RNN with
`nonlinearity="relu"`, other simple cells are that with tanh.
"""

from ragged.recurrent.convert.flax import from_flax, to_flax
from ragged.recurrent.convert.haiku import from_haiku, to_haiku
from ragged.recurrent.convert.keras import from_keras, to_keras

__all__ = ["from_flax", "from_haiku", "from_keras", "to_flax", "to_haiku", "to_keras"]
