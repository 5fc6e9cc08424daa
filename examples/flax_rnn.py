"""A tagger of flax's own cells: `nnx.RNN` becomes `ragged_jax.RNN`, no more than that."""

import jax
import jax.numpy as jnp
import ragged_jax
from flax import nnx


class Tagger(nnx.Module):
    """Words in, a tag for each word out."""

    def __init__(self, layers, rngs):
        self.embed = nnx.Embed(50, 16, rngs=rngs)
        self.recurrent = layers.Bidirectional(
            layers.RNN(nnx.OptimizedLSTMCell(16, 32, rngs=rngs)),
            layers.RNN(nnx.OptimizedLSTMCell(16, 32, rngs=rngs)),
        )
        self.tags = nnx.Linear(64, 5, rngs=rngs)

    def __call__(self, words, lengths):
        return self.tags(self.recurrent(self.embed(words), seq_lengths=lengths))


@nnx.jit
def score(model, words, lengths):
    """The log probabilities of tag 0, over the words that there are."""
    valid = jnp.arange(words.shape[1]) < lengths[:, None]
    return jnp.where(valid, jax.nn.log_softmax(model(words, lengths))[..., 0], 0).sum()


before = Tagger(nnx, nnx.Rngs(0))
after = Tagger(ragged_jax, nnx.Rngs(0))  # the same streams give the same weights

words = jax.random.randint(jax.random.key(0), (4, 9), 0, 50)
lengths = jnp.array([9, 2, 5, 1])
difference = abs(score(after, words, lengths) - score(before, words, lengths))
assert difference < 1e-4
gradients = [nnx.grad(score)(model, words, lengths) for model in (before, after)]
for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
    assert abs(one - other).max() < 1e-4
assert after.recurrent.reason is None  # else flax's own implementation would run a cell
print(f"difference {difference:.0e}")
