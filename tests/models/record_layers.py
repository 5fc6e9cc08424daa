"""Record what pytorch-forecasting's blocks compute, for `test_layers.py` to compare ours with.

    pip install torch==2.13.0 pytorch-forecasting==1.8.0
    python tests/models/record_layers.py

It writes `pytorch_forecasting_layers.npz` beside it: inputs, parameters under our names, outputs,
in float64. Its GRN is as wide behind its first Linear as behind its second, where ours may differ:
the sizes recorded are those at which both are the same. The biases of its keys, which ours lack,
are drawn too: they change nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

PATH = Path(__file__).parent / "pytorch_forecasting_layers.npz"
BATCH, TIME, FEATURES, SMALL, SIZE, HEADS = 3, 5, 3, 8, 4, 2
WIDTH, ENCODER = 2, (2, 1, 2)  # of the steps that attention reads, those of the encoder


def draw(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Give every parameter a value of its own."""
    module.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator).double() / 2)
    return module


def grn(found: Any) -> dict[str, torch.Tensor]:
    """A GatedResidualNetwork's parameters under our names."""
    pairs = {
        "hidden": found.fc1,
        "output": found.fc2,
        "gate.linear": found.gate_norm.glu.fc,
        "norm": found.gate_norm.add_norm.norm,
    }
    named = {}
    if hasattr(found, "resample_norm"):
        pairs["residual.norm"] = found.resample_norm.norm
        named["residual.scale"] = found.resample_norm.mask
    if found.context_size is not None:
        named["context.weight"] = found.context.weight
    for name, module in pairs.items():
        named |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
    return named


def under(prefix: str, named: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put a module's parameters under its name."""
    return {f"{prefix}.{name}": value for name, value in named.items()}


def main() -> None:
    """Run the blocks and write the file."""
    from pytorch_forecasting.models.temporal_fusion_transformer import sub_modules as theirs

    def normal(seed: int, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()

    x, context = normal(0, BATCH, TIME, SIZE), normal(3, BATCH, SIZE)
    wide, features = normal(1, BATCH, TIME, SMALL), normal(2, BATCH, TIME, FEATURES)
    steps, count = torch.arange(TIME), torch.tensor(ENCODER)[:, None, None]
    seen = (steps < count) | (
        (steps >= WIDTH) & (steps < WIDTH + torch.arange(TIME - WIDTH)[:, None])
    )
    inputs = {"x": x, "wide": wide, "features": features, "context": context}

    plain = draw(theirs.GatedResidualNetwork(SIZE, SIZE, SIZE, context_size=SIZE), 5)
    stretched = draw(theirs.GatedResidualNetwork(SMALL, SIZE, SIZE), 6)
    names = [f"x{i}" for i in range(FEATURES)]
    selection = draw(
        theirs.VariableSelectionNetwork(dict.fromkeys(names, SMALL), SIZE, context_size=SIZE), 7
    )
    attention = draw(theirs.InterpretableMultiHeadAttention(HEADS, SIZE), 8)
    contexts = context[:, None].expand(-1, TIME, -1)
    each = {name: features[..., i : i + 1] for i, name in enumerate(names)}
    selected, weights = selection(each, contexts)
    attended, shares = attention(x[:, WIDTH:], x, x, ~seen)

    copies = [grn(selection.single_variable_grns[name]) for name in names]
    scalers = [selection.prescalers[name] for name in names]
    parameters = {
        **under("grn", grn(plain)),
        **under("interpolating_grn", grn(stretched)),
        **under("selection.weights", grn(selection.flattened_grn)),
        **{f"selection.grns.{n}": torch.stack([copy[n] for copy in copies]) for n in copies[0]},
        "selection.linears.weight": torch.stack([scaler.weight for scaler in scalers]),
        "selection.linears.bias": torch.stack([scaler.bias for scaler in scalers]),
        "attention.query.weight": torch.cat([layer.weight for layer in attention.q_layers]),
        "attention.query.bias": torch.cat([layer.bias for layer in attention.q_layers]),
        "attention.key.weight": torch.cat([layer.weight for layer in attention.k_layers]),
        "attention.value.weight": attention.v_layer.weight,
        "attention.value.bias": attention.v_layer.bias,
        "attention.output.weight": attention.w_h.weight,
        "attention.output.bias": torch.zeros(SIZE),
    }
    outputs = {
        "grn": plain(x, contexts),
        "interpolating_grn": stretched(wide),
        "selection": selected,
        "selection.weights": weights.squeeze(-2),
        "attention": attended,
        "attention.weights": shares.permute(0, 2, 1, 3),
    }
    arrays = {
        **{f"input {name}": value for name, value in inputs.items()},
        **{f"parameter {name}": value for name, value in parameters.items()},
        **{f"output {name}": value for name, value in outputs.items()},
    }
    PATH.parent.mkdir(exist_ok=True)
    np.savez_compressed(PATH, **{name: value.detach().numpy() for name, value in arrays.items()})


if __name__ == "__main__":
    main()
