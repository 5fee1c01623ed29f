"""The search for words (Du et al., "Stable Diffusion is Unstable", NeurIPS 2023), by gradient through the sampling.

What stands behind the prompt is a choice of words with a learned distribution, relaxed by Gumbel's softmax so that the
classifier's margin has a gradient in it. The published attack keeps the gradient through the denoiser of its own
sampler; here it goes through the recorded steps of a rollout, as in training (Sec. 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from comat.diffusion.backbones import Backbone, PromptEmbeddings
from comat.diffusion.rollout import rollout
from comat.diffusion.sampling import begun
from comat.finished.attack.classifier import Classifier, margin
from comat.finished.attack.relaxed import encode
from comat.finished.attack.words import Words
from comat.method.replay import leaf_gradients, replay
from comat.method.step import place_steps
from comat.params import SamplingParams
from comat.randomness import generator

PURPOSE = "attack"


@dataclass(frozen=True)
class Search:
    """How words are searched for; the numbers of the published code, but for those that say otherwise."""

    words: int = 4  # behind the prompt; the published code has all that the encoder still reads
    iterations: int = 100
    learning_rate: float = 0.3
    kappa: float = 30.0
    batch: int = 1  # images an iteration


@dataclass(frozen=True)
class Attack:
    """What is attacked, and who judges it; weights of the model ask for no gradient."""

    backbone: Backbone
    params: SamplingParams
    grad_steps: int  # K, of the sampling steps
    classifier: Classifier
    words: Words
    search: Search
    draw_batch: int  # images at once, when their words are found

    def weights(self, prompt: str, label: int) -> Tensor:
        """The log-weights (S, V) of the words in each of S places behind `prompt` that lead away from class `label`."""
        own = self.search
        weights = torch.zeros(own.words, len(self.words), requires_grad=True)
        optimizer = torch.optim.Adam([weights], lr=own.learning_rate)
        for iteration in range(own.iterations):
            weights.grad = self.gradient(weights, prompt, label, iteration)
            optimizer.step()
        return weights.detach()

    def gradient(self, weights: Tensor, prompt: str, label: int, iteration: int) -> Tensor:
        """That of the margin in the log-weights, (S, V), of one draw of mixtures and noise."""
        weights = weights.detach().requires_grad_()
        rng = generator(self.params.seed, PURPOSE, "words", prompt, iteration)
        shares = [(weights + gumbel(weights.shape, rng)).softmax(-1) for _ in range(self.search.batch)]
        embeddings = PromptEmbeddings.cat([encode(self.backbone, prompt, self.words, row) for row in shares])
        self._backward(embeddings, label, (prompt, iteration))
        assert weights.grad is not None
        return weights.grad

    def _backward(self, embeddings: PromptEmbeddings, label: int, key: tuple[str, int]) -> None:
        """Draw the prompts, and take the margin's gradient back to what the embeddings were made of."""
        parts = [part for part in (embeddings.tokens, embeddings.pooled) if part is not None]
        cut = [part.detach().requires_grad_() for part in parts]
        prompts = PromptEmbeddings(cut[0], cut[1] if len(cut) > 1 else None, embeddings.mask)
        seed, count, scale = self.params.seed, len(prompts), self.params.guidance_scale
        own = [generator(seed, PURPOSE, "noise", *key, row) for row in range(count)]
        sampler, z = begun(self.backbone, self.params, own, self.params.resolution)
        steps = place_steps(0, len(sampler), self.grad_steps, generator(seed, PURPOSE, "steps", *key))
        drawn = rollout(self.backbone, sampler, z, prompts, scale, own, record=[steps] * count, chunk=count)
        z0 = drawn.z0.detach().requires_grad_()
        loss = margin(self.classifier(self.backbone.decode(z0)), label, self.search.kappa)
        (gradient,) = torch.autograd.grad(loss, z0)
        for step, own_gradient in leaf_gradients(
            drawn, gradient
        ).items():  # each with a graph of its own to the prompts
            replay(self.backbone, drawn, {step: own_gradient}, scale, chunk=count)
        torch.autograd.backward(parts, [torch.zeros_like(part) if part.grad is None else part.grad for part in cut])


def gumbel(shape: Sequence[int], rng: torch.Generator) -> Tensor:
    """Standard Gumbel noise, by which the largest of log-weights is a draw of their softmax."""
    return -torch.log(-torch.log(torch.rand(tuple(shape), generator=rng).clamp(1e-20, 1 - 1e-7)))


def drawn_words(weights: Tensor, words: Words, rng: torch.Generator) -> list[str]:
    """A word for each place, drawn by the log-weights (S, V)."""
    return [words.texts[int(row)] for row in (weights + gumbel(weights.shape, rng)).argmax(-1)]
