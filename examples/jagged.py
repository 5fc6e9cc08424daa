"""Episodes of 1 to 10,000 steps, empty ones too, without filler: nested tensors in and out."""

import ragged_torch
import torch

torch.manual_seed(0)
lengths = [1, 0, 10_000, 37]
episodes = torch.nested.nested_tensor(
    [torch.randn(length, 5) for length in lengths], layout=torch.jagged, requires_grad=True
)
layer = ragged_torch.GRU(5, 16, batch_first=True)

y, h = layer(episodes)
y.values().square().mean().backward()
print([tuple(row.shape) for row in y.unbind()])  # [(1, 16), (0, 16), (10000, 16), (37, 16)]

# The same from flat values and offsets, cu_seqlens elsewhere.
flat, _ = layer(episodes.values(), offsets=episodes.offsets())
assert torch.equal(flat, y.values())
assert not h[0, 1].any()  # the row without steps keeps its initial state
