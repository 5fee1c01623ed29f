"""The loop: two optimizers, clipping, logging, checkpoints; killed at any moment, it goes on as if nothing happened."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import AdamW
from tqdm import tqdm

from comat.captioners.load import LOSS_SCALE, load_teacher
from comat.diffusion.backbones import Backbone
from comat.diffusion.lora import add_lora, export_lora, lora_state, set_lora_state
from comat.discriminators import load_discriminator
from comat.errors import UserError, saving, unbroken
from comat.method.step import EMPTY_MASKS, MASKS, Step
from comat.params import Params
from comat.randomness import generator
from comat.running.distributed import ALONE, Processes
from comat.segmenters import Segmenter
from comat.segmenters.load import load_segmenter
from comat.storage.tables import write_json, write_safetensors
from comat.training.checkpoint import below, moments, read_state, restore_moments, write_state
from comat.training.curves import LEARNING_RATE, LEFT_OUT, curve_columns, postfix, summary, write_curves
from comat.training.data import TrainingData
from comat.training.diagnosis import diagnose
from comat.training.gradients import measured
from comat.training.guard import load_guard
from comat.training.loggers import NOBODY, Loggers
from comat.training.schedule import learning_rate
from comat.training.watch import Watch

STATE = "state.safetensors"
SOUGHT = 100
"""Entities of which the segmenter finds some, if it finds anything at all."""


class Trainer:
    """Fine-tunes the LoRA of `backbone` and the discriminator on `data`; keeps its state in `work`.

    All `processes` hold the same weights; each computes its share of every batch, the main one keeps the state. What
    can be seen while it runs is shown in `live` and told to the loggers.
    """

    def __init__(
        self,
        params: Params,
        backbone: Backbone,
        data: TrainingData,
        work: Path,
        processes: Processes = ALONE,
        live: Path | None = None,
        loggers: Loggers = NOBODY,
    ) -> None:
        self.p, self.data, self.backbone, self.work = params, data, backbone, work
        self.processes = processes
        device, dtype = backbone.device, backbone.dtype
        self.lora = add_lora(backbone, params.lora_rank, generator(params.seed, "lora"))
        self.discriminator = None
        if params.lambda_adv:
            self.discriminator = load_discriminator(
                params,
                backbone,
                generator(params.seed, "discriminator"),
                lora_rank=params.lora_rank,
                precision=params.precision,
                checkpointed=params.train.gradient_checkpointing == "all",
                stored=backbone.stored if params.discriminator_is_the_base else None,
            )
        captioner = None
        self.segmenter: Segmenter | None = None
        self.columns = curve_columns(params, params)
        if params.concept_activation:
            whole = params.train.gradient_checkpointing == "all"
            captioner = load_teacher(params, device, dtype, checkpointed=whole)
        if params.attribute_concentration:
            self.segmenter = load_segmenter(params, device, dtype)
        self.step = Step(params, params.train, backbone, captioner, self.segmenter, self.discriminator)
        self.optimizer = AdamW(
            self.lora, params.learning_rate, (params.adam_beta1, params.adam_beta2), weight_decay=params.weight_decay
        )
        self.critic = self.discriminator.trainable_parameters() if self.discriminator else []
        betas = (params.discriminator_adam_beta1, params.discriminator_adam_beta2)
        self.critic_optimizer = AdamW(
            self.critic or [nn.Parameter(torch.zeros(()))],
            params.discriminator_learning_rate,
            betas,
            weight_decay=params.weight_decay,
        )
        # In fp16 the gradients inside the frozen models would vanish; LoRA and its optimizer are float32 always.
        self.scaler = GradScaler(device.type, LOSS_SCALE, enabled=params.precision == "fp16")
        self.guard = self.watch = None
        if processes.main:
            section, size = params.train.guard, params.train.device_batch
            self.guard = load_guard(section, params, size, backbone, data.guarded, data.reference, work / "guard")
            last = params.train_steps
            self.watch = Watch(params.train, params, last, self.columns, backbone, work, live, loggers)
        self.rows: list[dict[str, float]] = []
        self.terms: dict[str, float] = {}
        self._restore()
        if self.watch:
            self.watch.resume(self.rows, self._looks)

    def run(self) -> None:
        """Train to the last iteration, or until the guard's patience is at its end.

        Raises:
            UserError: after `train.max_skipped` non-finite steps in a row, or where the last or only steps were so;
            the state is saved.
            Interrupted: by SIGINT or SIGTERM; the state is saved.
        """
        last = self.p.train_steps
        with saving(self._save, lambda: f"iteration {len(self.rows)} of {last}"):
            self._run(last)

    def _run(self, last: int) -> None:
        first, quiet = len(self.rows), not self.processes.main
        bar = tqdm(range(first, last), initial=first, total=last, desc="train", disable=quiet)
        for iteration in bar:
            if self.watch:
                self.watch.at(iteration)
            guarded, what = bool(self.p.train.guard.every), f"the look before iteration {iteration}"
            if guarded and self.processes.from_main_at_leisure(what, partial(self._stops, iteration)):
                break
            values = self._backward(iteration)
            with unbroken():
                self.rows.append({"iteration": iteration, **self._update(iteration, values), **self.terms})
            bar.set_postfix(postfix(self.rows[-1], self.p, self.p.concept_activation), refresh=False)
            if (iteration + 1) % self.p.train.checkpoint_every == 0 or iteration + 1 == last:
                self._save()
            if (skipped := self._skipped_in_a_row()) >= self.p.train.max_skipped:
                self._save()
                raise UserError(self._diagnosis(skipped))
            self._check_masks()
        # A single one at the end may be a loss scale that has just grown too large.
        if (skipped := self._skipped_in_a_row()) and (skipped > 1 or skipped == len(self.rows)):
            raise UserError(self._diagnosis(skipped))
        self._check_masks()
        if self.rows and not any(row["grad_norm"] for row in self.rows):
            raise UserError(
                f"none of {len(self.rows)} iterations gave the LoRA weights a gradient, so the tuned model would be "
                "the base; give some loss something to learn from: concept_activation, lambda_adv, masks of entities"
            )
        if self.p.train.guard.every:
            self.processes.from_main_at_leisure("the last look", self._last_look)
        if self.watch:
            self.watch.finish(self.rows, self._looks)

    @property
    def _looks(self) -> list[dict[str, float]]:
        return self.guard.rows if self.guard else []

    def iterate(self, iteration: int) -> dict[str, float]:
        """One iteration: gradients, clipping, both optimizers. A step that is not finite changes nothing."""
        return self._update(iteration, self._backward(iteration))

    def _backward(self, iteration: int) -> dict[str, float]:
        """The values of the losses; their gradients are in the weights, whose values do not change."""
        self.optimizer.zero_grad(set_to_none=True)
        self.critic_optimizer.zero_grad(set_to_none=True)
        self.step.loss_scale = float(self.scaler.scale(torch.ones((), device=self.backbone.device)))
        batch = self.data.batch(iteration).share(self.processes.rank, self.processes.count)
        before = self.segmenter.left_out if self.segmenter else 0
        every = self.p.train.gradients_every
        apart = bool(every) and iteration % every == 0
        of_terms: dict[str, list[Tensor]] = {}
        values = self.step(batch, look=partial(self._look, of_terms) if apart else None)
        values[LEFT_OUT] = float(self.segmenter.left_out - before if self.segmenter else 0)
        values = self.processes.sum_gradients([*self.lora, *self.critic], values)
        self.terms = measured(of_terms) if apart else {}
        return values

    def _look(self, of_terms: dict[str, list[Tensor]], term: str) -> None:
        """Note on the host the gradient that the LoRA weights hold of one term, summed over all processes."""
        self.processes.sum_gradients(self.lora, {})
        held = (torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in self.lora)
        of_terms[term] = [gradient.cpu() / self.step.loss_scale for gradient in held]

    def _update(self, iteration: int, values: dict[str, float]) -> dict[str, float]:
        rate = learning_rate(self.p, iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        learned = any(weight.grad is not None for weight in (*self.lora, *self.critic))
        if learned:  # the scaler refuses a batch that has no gradient
            self.scaler.unscale_(self.optimizer)
            self.scaler.unscale_(self.critic_optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.lora, self.p.max_grad_norm))
        critic_norm = float(nn.utils.clip_grad_norm_(self.critic, self.p.discriminator_max_grad_norm))
        finite = all(math.isfinite(v) for v in (*values.values(), norm, critic_norm))
        if finite:
            self.optimizer.step()
            self.critic_optimizer.step()
        if learned:
            self.scaler.update()
        return {**values, "grad_norm": norm, LEARNING_RATE: rate, "skipped": int(not finite)}

    def _last_look(self) -> None:
        if self.guard:
            self.guard.look(len(self.rows))

    def _check_masks(self) -> None:
        """Attribute concentration on objects that are never found would be a run like any other, by its curves.

        Raises:
            UserError: if none of the first `SOUGHT` entities or more has a mask.
        """
        sought, empty = self._sought()
        if sought >= SOUGHT and empty == sought:
            self._save()
            raise UserError(
                f"the segmenter found none of the {int(sought)} entities of {len(self.rows)} iterations, so attribute "
                f"concentration learns nothing from them; look at segmenter_model and its threshold, or set "
                "attribute_steps to 0"
            )

    def _sought(self) -> tuple[float, float]:
        """Entities that the segmenter was asked for in the steps that count, and those of them without a mask."""
        rows = [row for row in self.rows if not row["skipped"]]
        return sum(row[MASKS] for row in rows), sum(row[EMPTY_MASKS] for row in rows)

    def _stops(self, iteration: int) -> bool:
        return self.guard is not None and self.guard.stops(iteration)

    def _diagnosis(self, skipped: int) -> str:
        return diagnose(self.rows[-skipped:], self.p.learning_rate, self.p.precision, self.scaler.get_scale())

    def _skipped_in_a_row(self) -> int:
        count = 0
        for row in reversed(self.rows):
            if not row["skipped"]:
                break
            count += 1
        return count

    def _save(self) -> None:
        if not self.processes.main:
            return
        tensors = {f"lora.{k}": v for k, v in lora_state(self.backbone.denoiser).items()}
        tensors |= moments("optimizer", self.optimizer)
        if self.discriminator:
            tensors |= {f"discriminator.{k}": v for k, v in self.discriminator.trainable_state().items()}
            tensors |= moments("critic", self.critic_optimizer)
        notes = {"rows": self.rows, "scaler": self.scaler.state_dict()}
        if self.guard:
            tensors |= {f"guard.{k}": v for k, v in self.guard.best.items()}
            notes["guard"] = self.guard.rows
        write_state(self.work / STATE, tensors, notes)
        if self.watch:
            self.watch.saved(self.rows, self._looks)

    def _restore(self) -> None:
        tensors, notes = self._saved() if self.processes.main else ({}, {})
        notes = self.processes.from_main(lambda: notes)
        if not notes:
            return
        wanted = {name: value for name, value in tensors.items() if not name.startswith("guard.")}
        shared = self.processes.tensors_from_main(wanted, self.backbone.device)
        self.rows = notes["rows"]
        self.scaler.load_state_dict(notes["scaler"])
        set_lora_state(self.backbone.denoiser, below(shared, "lora"))
        restore_moments(self.optimizer, below(shared, "optimizer"))
        if self.discriminator:
            self.discriminator.load_trainable_state(below(shared, "discriminator"))
            restore_moments(self.critic_optimizer, below(shared, "critic"))
        if self.guard:
            self.guard.rows, self.guard.best = notes["guard"], below(tensors, "guard")

    def _saved(self) -> tuple[dict[str, Tensor], dict]:
        """What `_save` wrote, or nothing."""
        path = self.work / STATE
        return read_state(path) if path.exists() else ({}, {})

    def export(self, out: Path) -> None:
        """Write the LoRA, the discriminator's trained weights, `curves.csv`, `guard.csv` and `metrics.json`."""
        kept: dict[str, object] = {"guard": self.guard.choose()} if self.guard else {}
        export_lora(self.backbone, out / "lora")
        state = self.discriminator.trainable_state() if self.discriminator else {}
        write_safetensors(out / "discriminator" / "discriminator.safetensors", state)
        write_curves(out, self.columns, self.rows, self._looks)
        if self.data.held_out:
            kept["images_held_out"] = self.data.held_out
        if left_out := sum(row[LEFT_OUT] for row in self.rows):
            kept[LEFT_OUT] = int(left_out)
        sought, empty = self._sought()
        if sought:
            kept[EMPTY_MASKS] = empty / sought
        write_json(out / "metrics.json", {"train": {**summary(self.columns, self.rows), **kept}})
