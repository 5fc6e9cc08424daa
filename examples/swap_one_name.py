"""A tagger that packs by hand: `torch.nn.LSTM` becomes `ragged_torch.LSTM`, no more than that."""

import ragged_torch
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Tagger(nn.Module):
    """Words in, a tag for each word out."""

    def __init__(self, layers):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.lstm = layers.LSTM(16, 32, num_layers=2, bidirectional=True, batch_first=True)
        self.tags = nn.Linear(64, 5)

    def forward(self, words, lengths):
        packed = pack_padded_sequence(
            self.embed(words), lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = self.lstm(packed)
        return self.tags(pad_packed_sequence(states, batch_first=True)[0])


torch.manual_seed(0)
before = Tagger(nn)
torch.manual_seed(0)
after = Tagger(ragged_torch)  # the same seed gives the same weights

words, lengths = torch.randint(50, (4, 9)), torch.tensor([9, 2, 5, 1])
difference = (after(words, lengths) - before(words, lengths)).abs().max().item()
assert difference < 1e-5
print(f"largest difference {difference:.0e}")
