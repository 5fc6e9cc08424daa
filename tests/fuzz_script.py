"""Call every public function with arguments of all kinds: `fuzz_script BACKEND CASES SEED FILE`.

A case replaces one or two arguments of a valid call. It has to end in a `RaggedError`, or in the
numbers that the same values give as plain float32 arrays. FILE holds the case that is running, for
who finds this process dead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

import ragged
from ragged.errors import RaggedError
from ragged.losses import MaskedLoss
from tests.fuzz_values import (
    BATCH,
    FEATURES,
    FORMS,
    HIDDEN,
    JUNK,
    SWITCHES,
    WIDTH,
    jax_values,
    torch_values,
    whole,
)


def calls(own, folder):
    """Every public function with the arguments of a valid call; arrays are NumPy's."""
    x, lengths = whole(BATCH, WIDTH, FEATURES), np.array([2, 4, 1])
    layer = ragged.LSTM(FEATURES, HIDDEN, seed=0)
    parameters = {name: own(v, "float32") for name, v in weights(layer).items()}
    state = (whole(1, BATCH, HIDDEN), whole(1, BATCH, HIDDEN))
    packed = ragged.pack_sequences(own(x, "float32"), lengths)
    three = {name: value[: 3 * HIDDEN] for name, value in parameters.items()}
    one = {name: value[:HIDDEN] for name, value in parameters.items()}
    resets = np.arange(WIDTH) == lengths[:, None] - 1

    def run(h, c, **arguments):
        return ragged.lstm(parameters, state=(h, c), **arguments)

    def one_weight(weight, **arguments):
        return ragged.lstm({**parameters, "weight_ih_l0": weight}, **arguments)

    def choose(name):
        with ragged.use_backend(name) as backend:
            return backend.name

    def save(model, path):
        return ragged.save(model, checked(path))

    def checked(path):  # nothing is to be written where a case happens to point
        return folder / "model" if isinstance(path, (str, Path)) and "\0" not in str(path) else path

    def quiet(function):
        def run(**arguments):
            with contextlib.redirect_stdout(io.StringIO()):
                function(**arguments)

        return run

    rows = {"x": x, "lengths": lengths}
    sizes = {"hidden_size": 8, "input_size": 8, "proj_size": 2}
    sizes |= {"device": "cpu", "dtype": "float32", "policy": "auto"}
    named = {
        "Lengths": (ragged.Lengths, {"lengths": lengths, "width": WIDTH, "policy": "auto"}),
        "create_padding_mask": (
            ragged.create_padding_mask,
            {"lengths": lengths, "max_length": WIDTH, "alignment": "left"},
        ),
        "lengths_from_mask": (ragged.lengths_from_mask, {"mask": np.tri(3) > 0}),
        "align_sequences": (
            ragged.align_sequences,
            {**rows, "source": "left", "target": "right", "max_length": 5},
        ),
        "align_encoder_sequences": (ragged.align_encoder_sequences, {**rows, "max_length": 5}),
        "flip_sequences": (ragged.flip_sequences, {**rows, "alignment": "left"}),
        "should_use_packing": (ragged.should_use_packing, {"lengths": lengths}),
        "pack_sequences": (ragged.pack_sequences, rows),
        "pack_decoder_sequences": (ragged.pack_decoder_sequences, rows),
        "pack_encoder_sequences": (ragged.pack_encoder_sequences, {**rows, "alignment": "left"}),
        "unpack_to_fixed_length": (
            ragged.unpack_to_fixed_length,
            {"packed": packed, "lengths": lengths, "max_length": 5},
        ),
        "explain": (quiet(ragged.explain), {"lengths": lengths, **sizes}),
        "explain_attention": (
            quiet(ragged.explain_attention),
            {"q_lengths": lengths, "k_lengths": lengths[::-1].copy(), "causal": True,
             "diagonal": 0, "need_weights": False, "device": "cpu", "dtype": "float32"},
        ),
        "attention": (
            ragged.attention,
            {
                **{name: whole(BATCH, WIDTH, 2, FEATURES) for name in "qkv"},
                "q_lengths": lengths, "k_lengths": lengths[::-1].copy(), "causal": True,
                "diagonal": 0, "scale": 0.5, "dropout": 0.0, "seed": 0, "need_weights": False,
            },
        ),
        "attention, offsets": (
            ragged.attention,
            {
                **{name: whole(8, 2, FEATURES) for name in "qkv"},
                "q_offsets": np.array([0, 2, 2, 7]), "k_offsets": np.array([0, 5, 6, 8]),
                "q_max_length": 5, "k_max_length": 5, "causal": True, "need_weights": False,
            },
        ),
        "LSTM": (
            ragged.LSTM,
            {
                "input_size": 2, "hidden_size": 3, "num_layers": 1, "bias": True,
                "batch_first": True, "dropout": 0.0, "bidirectional": False, "proj_size": 0,
                "seed": 0,
            },
        ),
        "LSTM()": (layer, {**rows, "state": None}),
        "GRU": (ragged.GRU, {"input_size": 2, "hidden_size": 3, "bias": True, "dropout": 0.0}),
        "RNN": (ragged.RNN, {"input_size": 2, "hidden_size": 3, "nonlinearity": "tanh"}),
        "gru": (ragged.gru, {"parameters": three, **rows, "state": state[0]}),
        "rnn": (ragged.rnn, {"parameters": one, **rows, "state": state[0],
                             "nonlinearity": "relu", "resets": resets, "start": "zeros"}),
        "lstm": (ragged.lstm, {"parameters": parameters, **rows, "batch_first": True,
                               "between_layers": None}),
        "lstm, state": (run, {**rows, "h": state[0], "c": state[1]}),
        "lstm, weight": (one_weight, {**rows, "weight": weights(layer)["weight_ih_l0"]}),
        "use_backend": (choose, {"name": ragged.get_backend().name}),
        "set_backend": (ragged.set_backend, {"name": ragged.get_backend().name}),
        "save": (save, {"model": ragged.models.EncoderDecoderLSTM(2, 1, hidden_size=3, seed=0),
                        "path": str(folder / "model")}),
        "load": (ragged.load, {"path": str(folder / "model")}),
    }  # fmt: skip
    return named | dict(losses()) | dict(models())


def losses():
    """Every loss."""
    options = {"huber": {"delta": 1.0}, "mape": {"epsilon": 1e-8}, "gaussian_nll": {"full": True}}
    options["quantile"] = {"quantiles": (0.1, 0.9)}
    options["cross_entropy"] = {"class_weights": whole(2), "label_smoothing": 0.5}
    options["binary_cross_entropy"] = {"pos_weight": whole(WIDTH), "label_smoothing": 0.5}
    for name, loss in vars(ragged.losses).items():
        if isinstance(loss, MaskedLoss):
            last = () if loss.extra_axis is None else (2,)
            target = whole(BATCH, WIDTH)
            target = abs(target) % 2 if "cross_entropy" in name else target  # classes 0 and 1
            sides = {"prediction": whole(BATCH, WIDTH, *last), "target": target}
            more = {"weights": whole(BATCH), "reduction": "mean", **options.get(name, {})}
            shared = {**sides, "lengths": np.array([2, 4, 1]), "alignment": "left", **more}
            yield f"losses.{name}", (loss, shared)
            mask = {"mask": np.tri(BATCH, WIDTH) > 0}
            yield (
                f"losses.{name}.total_and_count",
                (loss.total_and_count, {**sides, **mask, **options.get(name, {})}),
            )


def models():
    """Every model, made and called."""
    own = {"reference_length": 4, "context_length": 4, "num_heads": 1, "dropout": 0.0}
    sizes = {"past_features": 2, "future_features": 1, "hidden_size": 4, "seed": 0}
    inputs = {
        "past": whole(BATCH, WIDTH, 2), "future": whole(BATCH, 2, 1),
        "encoder_lengths": np.array([2, 4, 1]), "decoder_lengths": np.array([2, 0, 1]),
    }  # fmt: skip
    for name in ragged.models.__all__:
        cls = getattr(ragged.models, name)
        if not issubclass(cls, ragged.models.Model) or cls is ragged.models.Model:
            continue
        fields = {each.name: each for each in dataclasses.fields(cls.describe)}
        made = sizes | {key: value for key, value in own.items() if key in fields}
        statics = {"static": whole(BATCH, 1)} if "static_features" in fields else {}
        more = {"static_features": 1} if statics else {}
        defaults = {
            key: each.default
            for key, each in fields.items()
            if key not in {*made, *more} and not key.startswith("hidden_c")
        }
        yield f"models.{name}", (cls, {**made, **more, **defaults})
        yield f"models.{name}()", (cls(**made, **more), {**inputs, **statics})


def weights(layer):
    return {name: np.array(v) for name, v in ragged.get_backend().get_parameters(layer).items()}


def numbers(result):
    """Every array of a result on the host, in order."""
    backend = ragged.get_backend()
    if backend.owns(result) and hasattr(result, "ndim"):
        if "float8" in str(result.dtype):
            result = backend.xp.astype(result, backend.xp.float32)
        return [np.asarray(backend.to_numpy(result), complex)]
    if isinstance(result, (tuple, list)):
        return [number for each in result for number in numbers(each)]
    return []


def plain(value):
    """The numbers that a value holds, as float32 or complex64."""
    is_own = ragged.get_backend().owns(value)
    host = numbers(value)[0] if is_own else np.asarray(value)
    if host.dtype.kind not in "biufc":
        raise TypeError(f"{host.dtype} was accepted")
    return host.astype(np.complex64 if np.iscomplex(host).any() else np.float32)


def is_meta(value):
    return "meta" in str(getattr(value, "device", ""))


def check(function, arguments, replaced, result):
    """Compare what was accepted with what plain float32 arrays, or integers, give."""
    again = dict(arguments)
    if any(is_meta(arguments[name]) for name in replaced):
        return  # shapes without values
    for name in replaced:
        if name in ("mask", "lengths", "encoder_lengths", "decoder_lengths"):
            again[name] = None if arguments[name] is None else np.asarray(arguments[name])
        else:
            again[name] = plain(arguments[name])
    for found, expected in zip(numbers(result), numbers(function(**again)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-2)


def main(backend, cases, seed, last):
    """Run the cases and print how they ended."""
    warnings.simplefilter("ignore")
    own, forms, junk = {"torch": torch_values, "jax": jax_values}[backend]()
    forms, junk = FORMS | forms, JUNK | junk
    random = np.random.default_rng(seed)
    ended = {"refused": 0, "right": 0, "valid": 0}
    failures = {}
    with tempfile.TemporaryDirectory() as folder, open(last, "w", buffering=1) as log:
        named = calls(own, Path(folder))
        names = {name.split("()")[0].split(",")[0].split(".total")[0] for name in named}
        print(*sorted(names))
        for function, arguments in named.values():
            function(**arguments)
        for case in range(cases):
            name = list(named)[random.integers(len(named))]
            function, valid = named[name]
            arguments, replaced, told = dict(valid), [], []
            for argument in random.choice(list(valid), 1 + (random.random() < 0.2)):
                value = valid[argument]
                if isinstance(value, np.ndarray) and random.random() < 0.75:
                    form = list(forms)[random.integers(len(forms))]
                    try:
                        arguments[argument] = forms[form](value, own)
                    except Exception:
                        continue  # the framework has no such array
                else:
                    form = list(junk)[random.integers(len(junk))]
                    arguments[argument] = junk[form]()
                replaced += [argument] if isinstance(value, np.ndarray) else []
                told += [f"{argument} = {form}"]
            if "lengths" in arguments and "lengths" not in replaced and random.random() < 0.5:
                policy = SWITCHES[random.integers(len(SWITCHES))]
                width = 4 if "max_length" not in arguments else None
                if width and name not in ("Lengths", "should_use_packing"):
                    arguments["lengths"] = ragged.Lengths(valid["lengths"], width, policy)
                    told += [f"policy {policy}"]
            os.environ["RAGGED_KERNELS"] = str(case % 2)
            text = f"case {case}: {name}({', '.join(told)}), RAGGED_KERNELS={case % 2}"
            log.seek(0)
            log.write(f"{text:<300}\n")
            try:
                result = function(**arguments)
                if replaced:
                    check(function, arguments, dict.fromkeys(replaced), result)
                ended["right" if told else "valid"] += 1
            except RaggedError as error:
                message = str(error)
                if not message or "object at 0x" in message or len(message) > 2000:
                    failures[text] = f"message: {message[:200]}"
                ended["refused"] += 1
            except BaseException as error:
                failures[text] = f"{type(error).__name__}: {str(error)[:200]}"
            finally:
                ragged.set_backend(backend)
    for text, error in failures.items():
        print("FAILED", text, "->", error.replace("\n", " "))
    print(f"{cases} cases on {backend}: {ended}, {len(failures)} failed")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
