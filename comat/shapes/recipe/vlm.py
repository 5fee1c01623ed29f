"""The vision-language model: LLaVA in miniature, which says what a scene shows, and whether it shows what is said."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from comat.params import DESCRIBE, SHOWS
from comat.shapes.recipe.captioner import DIRECTION_WEIGHT, PATCH, SIDE, WIDTH, object_places, place
from comat.shapes.recipe.data import Example, clean_examples, images, unit
from comat.shapes.recipe.fit import fit
from comat.shapes.recipe.tokenizers import words
from comat.shapes.world.captions import describe, plural
from comat.shapes.world.scenes import COLOURS, MAX_OBJECTS, NOUNS, Group, Spec

TEMPLATE = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
    "{% for c in m['content'] %}{{ '<image> ' if c['type'] == 'image' else c['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
QUESTIONS = 8
IMAGE_AT = 2
"""Where the image's token stands in a dialogue: behind USER and its colon."""
MOST = 128
"""Tokens of a dialogue, the image's among them."""


def dialogue(question: str, answer: str) -> str:
    """What the template makes of a question about an image and its answer, with the end."""
    return f"USER: <image> {question} ASSISTANT: {answer}</s>"


def tokenizer() -> PreTrainedTokenizerFast:
    """Every word of the world and of the two questions is a token, and so is every mark."""
    asked = ["USER", "ASSISTANT", ":", *DESCRIBE[:-1].split(), ".", "Does", "this", "figure", "show", '"', '"?']
    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    vocab = {word: index for index, word in enumerate(dict.fromkeys([*special, *asked, "Yes", "No", *words()]))}
    core = Tokenizer(models.WordLevel(vocab=vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    found = PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=MOST, **names)
    found.add_special_tokens({"extra_special_tokens": ["<image>"]})
    return found


def processor(own: PreTrainedTokenizerFast) -> LlavaProcessor:
    half, side = [0.5, 0.5, 0.5], {"height": SIDE, "width": SIDE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": SIDE}, crop_size=side, image_mean=half, image_std=half
        ),
        tokenizer=own,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def build(own: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """1.1 M parameters; pixels are normalised to [-1, 1]."""
    sizes: dict[str, Any] = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4}
    vision = CLIPVisionConfig(**sizes, num_hidden_layers=4, image_size=SIDE, patch_size=PATCH, projection_dim=WIDTH)
    text = LlamaConfig(
        **sizes,
        vocab_size=len(own),
        num_hidden_layers=3,
        max_position_embeddings=MOST,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        pad_token_id=own.pad_token_id,
    )
    image = own.get_vocab()["<image>"]
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=image, vision_feature_layer=-1)
    )
    place(model.model.vision_tower.get_submodule("embeddings.position_embedding").weight)
    return model


def wrong(spec: Spec, rng: random.Random) -> Spec:
    """What a scene of `spec` does not show: other in one thing, a colour, a noun, a number or who is where."""
    groups = list(spec.groups)
    place = rng.randrange(len(groups))
    own = groups[place]
    ways = ["colour", "noun", "number"]
    if spec.relation:
        ways += ["relation", "relation"]  # the last to be learned
    way = rng.choice(ways)
    if way == "relation":
        return replace(spec, groups=tuple(reversed(groups)))
    if way == "number":
        fits = spec.total < MAX_OBJECTS and own.count == 1 and not spec.relation
        own = replace(own, count=2 if fits else 1) if fits or own.count > 1 else _other_colour(own, rng)
    elif way == "noun":
        own = replace(own, noun=rng.choice([noun for noun in NOUNS if noun not in {g.noun for g in groups}]))
    else:
        others = [g for g in range(len(groups)) if groups[g].noun != own.noun and groups[g].colour != own.colour]
        if others:  # two things exchange their colours
            other = rng.choice(others)
            groups[other], own = (
                replace(groups[other], colour=own.colour),
                replace(own, colour=groups[other].colour),
            )
        else:
            own = _other_colour(own, rng)
    groups[place] = own
    return replace(spec, groups=tuple(groups))


def _other_colour(group: Group, rng: random.Random) -> Group:
    return replace(group, colour=rng.choice([colour for colour in COLOURS if colour != group.colour]))


def dialogues(examples: list[Example], rng: random.Random) -> list[str]:
    """Of the examples in turn: the caption, the answer Yes to the caption, and No to one that is wrong."""
    found = []
    for row, example in enumerate(examples):
        if row % 3 == 0:
            found.append(dialogue(DESCRIBE, example.caption))
        else:
            said, answer = (example.caption, "Yes") if row % 3 == 1 else (describe(wrong(example.spec, rng)), "No")
            found.append(dialogue(SHOWS.format(prompt=said), answer))
    return found


def read(model: LlavaForConditionalGeneration, seen: Tensor, ids: Tensor, turns: Tensor | None = None) -> Tensor:
    """(B, L, D) the language model's last states of the tokens of dialogues.

    Args:
        seen: (B, patches, D) image features, which take the place of the one token that stands for the image.
        ids: (B, L) dialogues.
        turns: (B, L), of dialogues in a row behind one image: which one a token is of, 0 of what opens them all. Each
            is read as if it stood alone there. By default there is one.
    """
    words = model.model.language_model.get_input_embeddings()(ids)
    joined = torch.cat([words[:, :IMAGE_AT], seen, words[:, IMAGE_AT + 1 :]], 1)
    where: dict[str, Tensor] = {}
    if turns is None:  # padding follows what is scored
        where["attention_mask"] = torch.ones(joined.shape[:2], dtype=torch.long, device=ids.device)
    else:
        where = _apart(torch.cat([turns[:, :IMAGE_AT], turns.new_zeros(seen.shape[:2]), turns[:, IMAGE_AT + 1 :]], 1))
    states = model.model.language_model(inputs_embeds=joined, use_cache=False, **where).last_hidden_state
    return torch.cat([states[:, :IMAGE_AT], states[:, IMAGE_AT + seen.shape[1] - 1 :]], 1)


def answer_nll(
    model: LlavaForConditionalGeneration, states: Tensor, ids: Tensor, own: PreTrainedTokenizerFast
) -> Tensor:
    """(B, L-1) negative log-likelihood of the answers in dialogues, from ASSISTANT and its colon to the end; else zero.

    `states` (B, L, D) are what `read` makes of the dialogues `ids` (B, L).
    """
    logits = model.lm_head(states)
    opened = (ids == own.get_vocab()["ASSISTANT"]).cumsum(1).roll(2, 1)
    ended = (ids == own.eos_token_id).cumsum(1).roll(1, 1)
    opened[:, :2] = ended[:, :1] = 0
    targets = ids[:, 1:].masked_fill((opened == ended)[:, 1:] | (ids[:, 1:] == own.pad_token_id), -100)
    return F.cross_entropy(logits[:, :-1].float().transpose(1, 2), targets, ignore_index=-100, reduction="none")


def _apart(turns: Tensor) -> dict[str, Tensor]:
    """Mask and positions by which turns (B, L) in a row read what opens them all (0) and themselves alone."""
    length, same = turns.shape[1], turns[:, :, None] == turns[:, None, :]
    before = torch.ones(length, length, dtype=torch.bool, device=turns.device).tril()
    reads = before & (same | (turns == 0)[:, None, :])
    mask = torch.zeros(reads.shape, device=turns.device).masked_fill(~reads, torch.finfo(torch.float32).min)
    shared = (turns == 0).sum(1, keepdim=True)
    positions = torch.where(turns == 0, before.sum(1) - 1, shared + (same & before).sum(2) - 1)
    return {"attention_mask": mask[:, None], "position_ids": positions}


def features(model: LlavaForConditionalGeneration, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """What the image tower says of each patch (B, patches, D), and the same for the language model."""
    seen = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
    return seen, model.model.multi_modal_projector(seen)


@dataclass(frozen=True)
class Asked:
    """A dialogue about a scene; `so` says of each noun in its question whether all is so as it is said up to there."""

    text: str
    so: tuple[bool, ...] = ()


def told_of(example: Example, rng: random.Random) -> tuple[Spec, Spec]:
    """What a scene shows and what it does not: in half of the cases the whole caption, in the others one thing of it.

    Whether a thing is there is learned much sooner than whether all is as a caption says, and helps with that.
    """
    if rng.random() < 0.5:
        return example.spec, wrong(example.spec, rng)
    groups = example.spec.groups
    own = rng.choice(groups)
    there = {(group.noun, group.colour) for group in groups}
    # A colour or a noun of another thing of the scene, if there is one: it is the pair that is not there.
    near = [replace(own, colour=group.colour) for group in groups] + [replace(own, noun=group.noun) for group in groups]
    far = [replace(own, colour=colour) for colour in COLOURS] + [replace(own, noun=noun) for noun in NOUNS]
    for others in (near, far):
        if absent := [group for group in others if (group.noun, group.colour) not in there]:
            return Spec((own,)), Spec((rng.choice(absent),))
    raise AssertionError("some colour is not in the scene")


def so_far(said: Spec, shown: Spec) -> tuple[bool, ...]:
    """Of each noun of `said`: whether what is said up to there is so where `shown` is shown."""
    found, ordered = [group in shown.groups for group in said.groups], said.groups == shown.groups
    return tuple(all(found[: at + 1]) and (not said.relation or at == 0 or ordered) for at in range(len(found)))


def asked_of(example: Example, rng: random.Random) -> list[Asked]:
    """The caption of a scene, and `QUESTIONS` about what is so and what is not.

    A question has one bit for an answer, where a caption has a word for every token: so it takes many of them.
    """
    found = [Asked(dialogue(DESCRIBE, example.caption))]
    for _ in range(QUESTIONS):
        said, answer = rng.choice(list(zip(told_of(example, rng), ("Yes", "No"), strict=True)))
        text = dialogue(SHOWS.format(prompt=describe(said)), answer)
        found.append(Asked(text, so_far(said, example.spec)))
    return found


class Lesson:
    """Images, and dialogues about them, of which the answers are to be likely.

    Where its object is, is asked of every patch; whether all is so up to there, of every noun in a question.
    """

    def __init__(self, model: LlavaForConditionalGeneration, own: PreTrainedTokenizerFast) -> None:
        self.model, self.own = model, own
        self.where, self.so = torch.nn.Linear(WIDTH, 4), torch.nn.Linear(WIDTH, 1)
        self.heavy = torch.tensor(own.convert_tokens_to_ids(["left", "right", "above", "below"]))
        self.nouns = torch.tensor(own.convert_tokens_to_ids([*NOUNS, *map(plural, NOUNS)]))

    def __call__(
        self,
        pixels: Tensor,
        places: Tensor,
        ids: Tensor,
        generator: torch.Generator,
        turns: Tensor | None = None,
        so: Tensor | None = None,
    ) -> Tensor:
        """The loss of uint8 images (B, 3, H, W), their `object_places`, and dialogues (B, L), of `turns` (B, L).

        `so` (B, L) is 1 where all is so up to a noun of a question, 0 where it is not, nan elsewhere.
        """
        device = self.model.device
        x = unit(pixels)
        x = x + 0.15 * torch.rand(len(x), 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
        seen, told = features(self.model, x.to(device))
        turns = turns if turns is None else turns.to(device)
        states = read(self.model, told, ids.to(device), turns)
        nll = answer_nll(self.model, states, ids.to(device), self.own)
        weight = (1.0 + (DIRECTION_WEIGHT - 1) * torch.isin(ids, self.heavy))[:, 1:].to(device) * (nll != 0)
        if turns is None:  # an answer of one word weighs as much as a whole caption
            said = ((nll * weight).sum(1) / weight.sum(1).clamp(min=1)).mean()
        else:  # all questions of an image weigh as much as its caption
            parts = [weight * (turns[:, 1:] == 1), weight * (turns[:, 1:] > 1)]
            said = torch.stack([(nll * part).sum() / part.sum() for part in parts]).sum()
        if so is not None:
            known = so.to(device).isfinite()
            said = said + F.binary_cross_entropy_with_logits(self.so(states[known])[:, 0], so.to(device)[known])
        at = places.to(device)
        covered = at.isfinite()
        missed = (self.where(seen) - at.nan_to_num()).square()
        return said + (missed * covered).sum() / covered.sum()

    def encode(self, texts: list[str]) -> Tensor:
        return self.own(texts, padding=True, padding_side="right", return_tensors="pt").input_ids

    def encode_together(self, asked: list[list[Asked]]) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L) several dialogues about each image in a row behind it, which of them a token is of, and what is so."""
        rows, turns, so = [], [], []
        for dialogues in asked:
            each = [torch.tensor(ids) for ids in self.own([one.text for one in dialogues]).input_ids]
            row, turn = [each[0][: IMAGE_AT + 1]], [torch.zeros(IMAGE_AT + 1, dtype=torch.long)]
            known = [torch.full((IMAGE_AT + 1,), torch.nan)]
            for number, (ids, one) in enumerate(zip((ids[IMAGE_AT + 1 :] for ids in each), dialogues, strict=True), 1):
                row.append(ids)
                turn.append(torch.full_like(ids, number))
                known.append(torch.full(ids.shape, torch.nan))
                if one.so:
                    known[-1][torch.isin(ids, self.nouns)] = torch.tensor(one.so, dtype=torch.float)
            rows.append(torch.cat(row))
            turns.append(torch.cat(turn))
            so.append(torch.cat(known))
        pad = torch.nn.utils.rnn.pad_sequence
        ids = pad(rows, batch_first=True, padding_value=self.own.pad_token_id)
        return ids, pad(turns, batch_first=True, padding_value=QUESTIONS + 2), pad(so, True, torch.nan)

    def fit(
        self, loss: Callable[[torch.Generator], Tensor], rate: float, steps: int, work: Path, precision: str
    ) -> None:
        trained = torch.nn.ModuleList([self.model, self.where, self.so])
        fit("vlm", trained, loss, steps=steps, learning_rate=rate, work=work, precision=precision)


def train(steps: int, own: PreTrainedTokenizerFast, work: Path, precision: str) -> LlavaForConditionalGeneration:
    """Maximum likelihood of true answers, one dialogue about each image, on slightly noisy renders."""
    torch.manual_seed(0)
    model = build(own)
    lesson = Lesson(model, own)
    examples = clean_examples(24_000, seed=8, weights=(1, 2, 4, 2, 2))
    pixels, places = images(examples, SIDE), object_places(examples, SIDE // PATCH)
    ids = lesson.encode(dialogues(examples, random.Random("dialogues")))

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(ids), (64,), generator=generator)
        return lesson(pixels[rows], places[rows], ids[rows], generator)

    lesson.fit(loss, 1e-3, steps, work, precision)
    return model


def go_on(
    model: LlavaForConditionalGeneration, steps: int, own: PreTrainedTokenizerFast, work: Path, precision: str
) -> LlavaForConditionalGeneration:
    """The same on other scenes, with many questions about each: the scene alone tells what is so from what is not."""
    torch.manual_seed(1)
    lesson = Lesson(model, own)
    examples = clean_examples(24_000, seed=9, weights=(1, 2, 4, 2, 2))
    pixels, places = images(examples, SIDE), object_places(examples, SIDE // PATCH)

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(examples), (24,), generator=generator)
        rng = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
        ids, turns, so = lesson.encode_together([asked_of(examples[row], rng) for row in rows.tolist()])
        return lesson(pixels[rows], places[rows], ids, generator, turns, so)

    lesson.fit(loss, 7e-4, steps, work, precision)
    return model
