"""A finished model, somebody else's say: swap all its recurrent layers in place."""

import ragged_torch
import torch
from torch import nn


class SpeechModel(nn.Module):
    """Frames `(time, batch, features)` through stacked GRUs, as in DeepSpeech."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(20, 32, 5, padding=2)
        self.recurrent = nn.ModuleList([nn.GRU(32, 32, bidirectional=True), nn.GRU(64, 32)])
        self.letters = nn.Linear(32, 28)

    def forward(self, frames):
        x = self.convolution(frames.permute(1, 2, 0)).permute(2, 0, 1)
        for layer in self.recurrent:
            x, _ = layer(x)
        return self.letters(x)


torch.manual_seed(0)
model = SpeechModel()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # parameters are shared, so it goes on
frames = torch.randn(30, 4, 20)
before = model(frames)

print(ragged_torch.replace_recurrent(model))  # recurrent.0: replaced, recurrent.1: replaced

difference = (model(frames) - before).abs().max().item()
assert difference < 1e-5
model(frames).logsumexp(-1).mean().backward()
optimizer.step()
print(f"largest difference {difference:.0e}")
