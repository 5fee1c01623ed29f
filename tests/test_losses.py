"""Every loss against numbers derived by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from comat.diffusion.schedulers import make_sampler
from comat.method.attribute_concentration import (
    Entity,
    attribute_concentration_loss,
    pixel_loss,
    reduced,
    region_loss,
    resize_mask,
)
from comat.method.concept_activation import concept_activation_loss, jitter_crop
from comat.method.fidelity_preservation import discriminator_loss, generator_loss
from comat.method.mixed_latents import draw_start
from comat.method.step import place_steps
from comat.randomness import generator

LEFT = torch.tensor([[[True, False], [True, False]]])


def test_concept_activation_is_the_negative_log_likelihood() -> None:
    """log p = (-1, -2 | padding -9) and (-3, -1, -2): sums 3 and 6; means 3/2 and 6/3."""
    log_p = torch.tensor([[-1.0, -2.0, -9.0], [-3.0, -1.0, -2.0]])
    counts = torch.tensor([[True, True, False], [True, True, True]])
    assert_close(concept_activation_loss(log_p, counts, "sum"), torch.tensor([3.0, 6.0]))
    assert_close(concept_activation_loss(log_p, counts, "mean"), torch.tensor([1.5, 2.0]))


def test_attribute_concentration_names_a_wrong_reduction() -> None:
    with pytest.raises(ValueError, match="attribute_reduction is 'max': expected 'sum' or 'mean'"):
        reduced([torch.ones(2)], "max")


def test_concept_activation_names_a_wrong_reduction() -> None:
    with pytest.raises(ValueError, match="caption_reduction is 'max': expected 'mean' or 'sum'"):
        concept_activation_loss(torch.zeros(1, 1), torch.ones(1, 1), "max")


def test_generator_loss_is_non_saturating() -> None:
    """-log sigmoid(0) = log 2; with logits (0, ln 3): -log(3/4) = log(4/3), mean over both."""
    logits = torch.tensor([[0.0, math.log(3)]])
    assert_close(generator_loss(logits), torch.tensor([(math.log(2) + math.log(4 / 3)) / 2]))


def test_discriminator_loss() -> None:
    """Real logit ln 3 costs -log(3/4); fake logit ln 3 costs -log(1 - 3/4) = log 4."""
    logit = torch.tensor([[math.log(3)]])
    assert_close(discriminator_loss(logit, logit), torch.tensor([math.log(4 / 3) + math.log(4)]))


def map_of(rows: list[list[float]], tokens: int = 2) -> torch.Tensor:
    """(1, 1, h, w, L): token 1 has these probabilities, token 0 the rest."""
    one = torch.tensor(rows)
    return torch.stack([1 - one, one], -1)[None, None]


def test_region_level_counts_the_share_inside_and_outside() -> None:
    """Attention .4 .1 / .2 .1, sum .8. Left column: .6/.8 = 3/4 inside, 1/4 outside: 1/4 - 3/4 = -1/2."""
    maps, tokens = map_of([[0.4, 0.1], [0.2, 0.1]]), torch.tensor([[False, True]])
    assert_close(region_loss(maps, tokens, LEFT), torch.tensor([-0.5]))
    assert_close(region_loss(maps, tokens, LEFT, squared=True), torch.tensor([1 / 16]))


def test_region_level_of_a_missing_object_has_no_gradient() -> None:
    """Nothing is inside: the share outside is one, whatever the map."""
    maps = map_of([[0.4, 0.1], [0.2, 0.1]]).requires_grad_()
    loss = region_loss(maps, torch.tensor([[False, True]]), torch.zeros(1, 2, 2, dtype=torch.bool))
    assert_close(loss, torch.tensor([1.0]))
    (gradient,) = torch.autograd.grad(loss.sum(), maps)
    assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)


def test_pixel_level_is_a_cross_entropy() -> None:
    """Two tokens at .2 + .3 in every pixel: inside -log .5, outside -log(1 - .5), mean over four pixels: log 2."""
    maps = torch.tensor([0.5, 0.2, 0.3]).expand(1, 2, 2, 3)
    assert_close(pixel_loss(maps, torch.tensor([[False, True, True]]), LEFT), torch.tensor([math.log(2)]))


def test_pixel_level_of_a_missing_object_is_the_negative_part_alone() -> None:
    """Attention .2 everywhere and no mask: -log(.8)."""
    maps = torch.tensor([0.8, 0.2]).expand(1, 2, 2, 2)
    nothing = torch.zeros(1, 2, 2, dtype=torch.bool)
    assert_close(pixel_loss(maps, torch.tensor([[False, True]]), nothing), torch.tensor([-math.log(0.8)]))


def test_the_loss_averages_over_entities_and_layers_and_sums_over_prompts() -> None:
    """Two layers with region losses -1/2 and (uniform map) 1/2 - 1/2 = 0, so -1/4 an entity.

    Prompt 0 has two such entities (mean -1/4), prompt 1 one, prompt 2 none: -1/4 - 1/4 = -1/2, times alpha 2 = -1.
    """
    sharp, flat = map_of([[0.4, 0.1], [0.2, 0.1]]), map_of([[0.2, 0.2], [0.2, 0.2]])
    maps = {"a": sharp.expand(3, -1, -1, -1, -1), "b": flat.expand(3, -1, -1, -1, -1)}
    entity = Entity("ball", (1,))
    entities = [[entity, entity], [entity], []]
    masks = [LEFT.expand(2, -1, -1), LEFT, LEFT[:0]]
    of = (maps, entities, masks)
    assert_close(attribute_concentration_loss(*of, alpha=2.0, beta=0.0, reduction="mean"), torch.tensor(-1.0))
    # The sum over the two layers is twice their mean, and there is one size of maps.
    assert_close(attribute_concentration_loss(*of, alpha=2.0, beta=0.0), torch.tensor(-2.0))
    pixels = [attribute_concentration_loss(*of, alpha=0.0, beta=1.0, reduction=r) for r in ("sum", "mean")]
    assert_close(pixels[0], pixels[1])


def test_the_pixel_level_is_of_the_layers_of_each_size() -> None:
    """Halves of .4 and .1 on a 2x2 map, twice, and .2 everywhere on a 1x1 map, whose mask is the whole of it.

    Cross-entropy of the first, -(2 log .4 + 2 log .9) / 4 of two equal layers, of the second -log .2; their sum, and
    half of it.
    """
    fine, coarse = map_of([[0.4, 0.1], [0.4, 0.1]]), map_of([[0.2]])
    of = ({"a": fine, "b": fine, "c": coarse}, [[Entity("ball", (1,))]], [LEFT])
    wanted = -(math.log(0.4) + math.log(0.9)) / 2 - math.log(0.2)
    assert_close(attribute_concentration_loss(*of, alpha=0.0, beta=2.0), torch.tensor(2 * wanted))
    assert_close(attribute_concentration_loss(*of, alpha=0.0, beta=2.0, reduction="mean"), torch.tensor(wanted))


def test_tokencompose_squares_the_mean_over_heads_and_averages_over_tokens() -> None:
    """Two heads with shares inside of 3/4 and 1/4, mean 1/2: (1 - 1/2)^2 = 1/4 for each of the two tokens.

    Squared by head it would be (1/16 + 9/16) / 2 = 5/16, and twice that as a sum over the tokens.
    """
    heads = torch.cat([map_of([[0.4, 0.1], [0.2, 0.1]]), map_of([[0.1, 0.4], [0.1, 0.2]])], 1)
    maps = torch.stack([heads[..., 0] * 0 + 0.1, heads[..., 1], heads[..., 1]], -1)
    tokens = torch.tensor([[False, True, True]])
    assert_close(region_loss(maps, tokens, LEFT, squared=True), torch.tensor([0.25]))


def test_a_small_object_keeps_a_cell_on_a_coarse_map() -> None:
    """One pixel of an 8x8 mask covers 1/16 of a cell of a 2x2 map; an empty mask stays empty."""
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[0, 6, 1] = True
    assert resize_mask(mask, (2, 2)).tolist() == [[[False, False], [True, False]], [[False, False], [False, False]]]


def test_jitter_crops_by_at_most_a_224th() -> None:
    images = torch.arange(2 * 3 * 448 * 448, dtype=torch.float32).view(2, 3, 448, 448)
    assert jitter_crop(images, generator(0, "crop")).shape == (2, 3, 446, 446)
    small = images[..., :64, :64]
    assert torch.equal(jitter_crop(small, generator(0, "crop")), small)


@given(st.integers(0, 40), st.integers(1, 60), st.integers(1, 10), st.integers(0, 10_000))
def test_steps_are_equally_spaced_and_inside(start: int, length: int, count: int, seed: int) -> None:
    steps = place_steps(start, start + length, count, generator(seed, "steps"))
    assert len(steps) == min(count, length)
    assert start <= steps[0] and steps[-1] < start + length
    assert len({b - a for a, b in itertools.pairwise(steps)}) <= 1


@given(st.integers(0, 10_000))
def test_tau_starts_at_a_step_in_its_range(seed: int) -> None:
    """Timesteps 901, 801, …, 1: a tau of [200, 600] starts at 501, 401, 301, 201 or 101."""
    schedule = {"timestep_spacing": "leading", "steps_offset": 1}
    sampler = make_sampler("ddpm", schedule, 10)
    assert sampler.timesteps.tolist() == list(range(901, 0, -100))
    assert int(sampler.timesteps[draw_start(sampler, 200, 600, generator(seed, "tau"))]) in (501, 401, 301, 201, 101)
