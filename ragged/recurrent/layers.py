"""Recurrent layers: as modules of the chosen backend, and as functions over a dict of arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ragged.backend import backend_of, get_backend
from ragged.checks import as_array, as_choice, as_flag, as_rate, shown
from ragged.errors import ArgumentError
from ragged.protocol import Array
from ragged.recurrent.call import parameter_name, validate_and_call
from ragged.recurrent.cells import NONLINEARITIES
from ragged.recurrent.shape import RecurrentShape


def LSTM(  # noqa: N802 - it gives a class's instance and reads as that class
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bias: bool = True,
    batch_first: bool = True,
    dropout: float = 0.0,
    bidirectional: bool = False,
    proj_size: int = 0,
    *,
    seed: int | None = None,
) -> Any:
    """Build the chosen backend's LSTM layer, a native module.

        i, f, g, o = split(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)             (then h @ weight_hr.T with a projection)

    `layer(x, lengths=None, state=None) -> (y, (h, c))`; y is exactly 0 at padding, (h, c) is the
    state after each row's last valid step, and a row of length 0 keeps its initial state.

    Lists and NumPy arrays of floats given to the layer take its own dtype; integers, booleans and
    complex numbers are refused. Torch's arrays must have the layer's dtype, as in `torch.nn.LSTM`,
    unless `torch.autocast` is on; JAX's are promoted together with the parameters, as in flax.

    Args:
        input_size: features of x.
        hidden_size: features of c, and of h without a projection.
        num_layers: layers one above the other.
        bias: whether the gates have biases.
        batch_first: x is `(batch, time, input_size)`, else `(time, batch, input_size)`.
        dropout: rate between layers, in training.
        bidirectional: a second LSTM reads each row from its last valid step back.
        proj_size: features of h after a projection; 0 = none.
        seed: seed of the initial values, equal on every backend; None draws one.

    Raises:
        OptionError: a size below 1, a rate outside 0..1, or an argument of another type.

    Example:
        >>> import ragged
        >>> layer = ragged.LSTM(3, 8, seed=0)
        >>> y, (h, c) = layer([[[1., 2., 3.], [4., 5., 6.]]], lengths=[1])
        >>> tuple(y.shape), y[0, 1].tolist() == [0.0] * 8
        ((1, 2, 8), True)

    Source: torch.nn.LSTM, whose arguments, names and equations these are; unlike it, it is batch
    first unless said.
    """
    return get_backend().Recurrent(
        "LSTM",
        input_size,
        hidden_size,
        num_layers,
        bias,
        as_flag("LSTM", "batch_first", batch_first),
        as_rate("LSTM", "dropout", dropout),
        bidirectional,
        proj_size,
        seed=seed,
    )


def GRU(  # noqa: N802 - it gives a class's instance and reads as that class
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bias: bool = True,
    batch_first: bool = True,
    dropout: float = 0.0,
    bidirectional: bool = False,
    *,
    seed: int | None = None,
) -> Any:
    """Build the chosen backend's GRU layer, a native module.

        r, z = sigmoid(split(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh))
        n = tanh(x @ weight_in.T + bias_in + r * (h @ weight_hn.T + bias_hn))
        h = (1 - z) * n + z * h

    `layer(x, lengths=None, state=None) -> (y, h)`; otherwise as `LSTM`.

    Args:
        input_size: features of x.
        hidden_size: features of h.
        num_layers: layers one above the other.
        bias: whether the gates have biases.
        batch_first: x is `(batch, time, input_size)`, else `(time, batch, input_size)`.
        dropout: rate between layers, in training.
        bidirectional: a second GRU reads each row from its last valid step back.
        seed: seed of the initial values, equal on every backend; None draws one.

    Raises:
        OptionError: a size below 1, a rate outside 0..1, or an argument of another type.

    Example:
        >>> import ragged
        >>> layer = ragged.GRU(3, 8, seed=0)
        >>> y, h = layer([[[1., 2., 3.], [4., 5., 6.]]], lengths=[1])
        >>> tuple(y.shape), bool((h[0, 0] == y[0, 0]).all())
        ((1, 2, 8), True)

    Source: torch.nn.GRU, whose arguments, names and equations these are: the reset gate acts after
    the product, as in cuDNN, flax and Keras (`reset_after`).
    """
    return get_backend().Recurrent(
        "GRU",
        input_size,
        hidden_size,
        num_layers,
        bias,
        as_flag("GRU", "batch_first", batch_first),
        as_rate("GRU", "dropout", dropout),
        bidirectional,
        seed=seed,
    )


def RNN(  # noqa: N802 - it gives a class's instance and reads as that class
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    nonlinearity: str = "tanh",
    bias: bool = True,
    batch_first: bool = True,
    dropout: float = 0.0,
    bidirectional: bool = False,
    *,
    seed: int | None = None,
) -> Any:
    """Build the chosen backend's plain recurrent layer, a native module.

        h = tanh(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)

    `layer(x, lengths=None, state=None) -> (y, h)`; otherwise as `LSTM`.

    Args:
        input_size: features of x.
        hidden_size: features of h.
        num_layers: layers one above the other.
        nonlinearity: "tanh" or "relu".
        bias: whether there are biases.
        batch_first: x is `(batch, time, input_size)`, else `(time, batch, input_size)`.
        dropout: rate between layers, in training.
        bidirectional: a second RNN reads each row from its last valid step back.
        seed: seed of the initial values, equal on every backend; None draws one.

    Raises:
        OptionError: a size below 1, a rate outside 0..1, another nonlinearity, or an argument of
            another type.

    Example:
        >>> import ragged
        >>> layer = ragged.RNN(3, 8, nonlinearity="relu", seed=0)
        >>> y, h = layer([[[1., 2., 3.], [4., 5., 6.]]], lengths=[1])
        >>> tuple(y.shape), bool((y >= 0).all())
        ((1, 2, 8), True)

    Source: torch.nn.RNN, whose arguments, names and equations these are.
    """
    as_choice("RNN", "nonlinearity", nonlinearity, tuple(NONLINEARITIES))
    return get_backend().Recurrent(
        NONLINEARITIES[nonlinearity],
        input_size,
        hidden_size,
        num_layers,
        bias,
        as_flag("RNN", "batch_first", batch_first),
        as_rate("RNN", "dropout", dropout),
        bidirectional,
        seed=seed,
    )


def lstm(
    parameters: Mapping[str, Array],
    x: Array,
    lengths: object = None,
    state: object = None,
    *,
    batch_first: bool = True,
    between_layers: Callable[[Array], Array] | None = None,
    resets: object = None,
    start: str = "zeros",
) -> tuple[Array, tuple[Array, Array]]:
    """Run an LSTM given as a dict of arrays; the sizes are read off their shapes.

    Args:
        parameters: torch's names (`weight_ih_l0 (4 * hidden_size, input_size)`, ...), floating.
        x: `(batch, time, input_size)`, left aligned; of the parameters' dtype, as in `LSTM`.
        lengths: `(batch,)` integers; None = every row is full.
        state: h and c, `(layers * directions, batch, size)`; zeros if not given.
        batch_first: False takes and gives `(time, batch, features)`.
        between_layers: applied to every layer's output but the last one's; dropout, say.
        resets: boolean `(batch, time)`, True where the state starts anew before a step.
        start: from what it does: "zeros", or the row's "initial" state.

    Returns:
        y `(batch, time, directions * size)`, exactly 0 at padding, and the state (h, c) after
        each row's last valid step.

    Raises:
        LengthsError, ShapeError, MixedFrameworksError: what cannot be run, before it is.
        DtypeError: arrays that are not floating or, on torch, of different dtypes.
        DeviceError: arrays on different devices.
        ArgumentError: parameters that are no mapping, or `between_layers` that is no function.

    Example:
        >>> import numpy as np, ragged
        >>> names = {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4)}
        >>> parameters = {name: np.ones(shape) for name, shape in names.items()}
        >>> y, (h, c) = ragged.lstm(parameters, np.ones((2, 5, 3)), lengths=[5, 2])
        >>> tuple(y.shape), bool((h[0, 1] == y[1, 1]).all())
        ((2, 5, 4), True)
    """
    call = x, lengths, state, batch_first, between_layers, resets, start
    return _call("LSTM", "lstm", parameters, *call)


def gru(
    parameters: Mapping[str, Array],
    x: Array,
    lengths: object = None,
    state: object = None,
    *,
    batch_first: bool = True,
    between_layers: Callable[[Array], Array] | None = None,
    resets: object = None,
    start: str = "zeros",
) -> tuple[Array, Array]:
    """Run a GRU given as a dict of arrays; arguments and errors are those of `lstm`.

    Args:
        parameters: torch's names (`weight_ih_l0 (3 * hidden_size, input_size)`, ...), floating.
        x: `(batch, time, input_size)`, left aligned; of the parameters' dtype, as in `GRU`.
        lengths: `(batch,)` integers; None = every row is full.
        state: h, `(layers * directions, batch, hidden_size)`; zeros if not given.
        batch_first: False takes and gives `(time, batch, features)`.
        between_layers: applied to every layer's output but the last one's; dropout, say.
        resets: boolean `(batch, time)`, True where the state starts anew before a step.
        start: from what it does: "zeros", or the row's "initial" state.

    Returns:
        y `(batch, time, directions * hidden_size)`, exactly 0 at padding, and h after each row's
        last valid step.

    Example:
        >>> import numpy as np, ragged
        >>> names = {"weight_ih_l0": (12, 3), "weight_hh_l0": (12, 4)}
        >>> parameters = {name: np.ones(shape) for name, shape in names.items()}
        >>> y, h = ragged.gru(parameters, np.ones((2, 5, 3)), lengths=[5, 2])
        >>> tuple(y.shape), tuple(h.shape)
        ((2, 5, 4), (1, 2, 4))
    """
    call = x, lengths, state, batch_first, between_layers, resets, start
    return _call("GRU", "gru", parameters, *call)


def rnn(
    parameters: Mapping[str, Array],
    x: Array,
    lengths: object = None,
    state: object = None,
    *,
    nonlinearity: str = "tanh",
    batch_first: bool = True,
    between_layers: Callable[[Array], Array] | None = None,
    resets: object = None,
    start: str = "zeros",
) -> tuple[Array, Array]:
    """Run a plain recurrent layer given as a dict of arrays; otherwise as `gru`.

    Args:
        parameters: torch's names (`weight_ih_l0 (hidden_size, input_size)`, ...), floating.
        x: `(batch, time, input_size)`, left aligned; of the parameters' dtype, as in `RNN`.
        lengths: `(batch,)` integers; None = every row is full.
        state: h, `(layers * directions, batch, hidden_size)`; zeros if not given.
        nonlinearity: "tanh" or "relu".
        batch_first: False takes and gives `(time, batch, features)`.
        between_layers: applied to every layer's output but the last one's; dropout, say.
        resets: boolean `(batch, time)`, True where the state starts anew before a step.
        start: from what it does: "zeros", or the row's "initial" state.

    Returns:
        y `(batch, time, directions * hidden_size)`, exactly 0 at padding, and h after each row's
        last valid step.

    Example:
        >>> import numpy as np, ragged
        >>> names = {"weight_ih_l0": (4, 3), "weight_hh_l0": (4, 4)}
        >>> parameters = {name: np.ones(shape) for name, shape in names.items()}
        >>> y, h = ragged.rnn(parameters, np.ones((2, 5, 3)), lengths=[1, 0], nonlinearity="relu")
        >>> h[0].tolist()
        [[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]]
    """
    as_choice("rnn", "nonlinearity", nonlinearity, tuple(NONLINEARITIES))
    call = x, lengths, state, batch_first, between_layers, resets, start
    return _call(NONLINEARITIES[nonlinearity], "rnn", parameters, *call)


def _call(
    mode: str,
    function: str,
    parameters: Mapping[str, Array],
    x: Array,
    lengths: object,
    state: object,
    batch_first: bool,
    between_layers: Callable[[Array], Array] | None,
    resets: object,
    start: str,
) -> Any:
    if between_layers is not None and not callable(between_layers):
        expected, remedy = "a function of an array", "Leave it out where nothing is to be done."
        raise ArgumentError.of(function, "between_layers", shown(between_layers), expected, remedy)
    if not isinstance(parameters, Mapping):
        expected = f"a mapping of torch.nn.{function.upper()}'s names to arrays"
        remedy = f"Take it from the state_dict of a layer, ragged.{function.upper()}'s say."
        raise ArgumentError.of(function, "parameters", shown(parameters), expected, remedy)
    named = {parameter_name(name): value for name, value in parameters.items()}
    backend = backend_of(function, **named, x=x)
    like = next((value for value in (*named.values(), x) if backend.owns(value)), None)
    parameters = {
        name: as_array(backend, function, parameter_name(name), value, like)
        for name, value in parameters.items()
    }
    call = x, lengths, state, batch_first, between_layers, resets, start
    shape = RecurrentShape.of(parameters, mode)
    return validate_and_call(function, backend, shape, parameters, *call)
