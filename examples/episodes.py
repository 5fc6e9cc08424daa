"""Rollouts in which episodes end: the state starts anew inside a row, without a loop over steps."""

import ragged_torch
import torch

torch.manual_seed(0)
environments, steps = 8, 64
observations = torch.randn(steps, environments, 6)
episode_starts = torch.rand(steps, environments) < 0.05
state = (torch.randn(1, environments, 16), torch.randn(1, environments, 16))

policy = ragged_torch.LSTM(6, 16)
outputs, (h, c) = policy(observations, state, resets=episode_starts)

# The same as recurrent policies usually do it, one step at a time.
looped, (hidden, cell) = [], state
for observation, starts in zip(observations, episode_starts, strict=True):
    alive = ~starts[None, :, None]
    output, (hidden, cell) = policy(observation[None], (hidden * alive, cell * alive))
    looped.append(output)

difference = (outputs - torch.cat(looped)).abs().max().item()
assert difference < 1e-5
assert torch.allclose(h, hidden, atol=1e-5)
assert torch.allclose(c, cell, atol=1e-5)
print(f"largest difference {difference:.0e}")
