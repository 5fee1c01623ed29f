"""What can be seen of a training while it runs; none of it has a say in the training."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from comat.diffusion.backbones import Backbone
from comat.diffusion.lora import export_lora
from comat.params import SamplingParams, TrainParams
from comat.storage.tables import write_bytes
from comat.training.curves import Rows, write_curves
from comat.training.loggers import NOBODY, Loggers
from comat.training.preview import PAGE, Preview, empty_page

KEPT = "kept"
"""Folder of the LoRAs that are kept on the way."""


class Watch:
    """Curves, pictures and LoRAs on the way, in `work/out` and, while it grows, in `live` as well; and loggers.

    Everything is done before an iteration begins, or after the last, from the state that a resumed run has again: so a
    run that was killed shows what an undisturbed one shows. Loggers are told at checkpoints what will not be redone.
    """

    def __init__(
        self,
        section: TrainParams,
        sampling: SamplingParams,
        last: int,
        columns: Sequence[str],
        backbone: Backbone,
        work: Path,
        live: Path | None = None,
        loggers: Loggers = NOBODY,
    ) -> None:
        self.section, self.last, self.columns, self.backbone = section, last, columns, backbone
        self.out, self.live, self.loggers = work / "out", live, loggers
        self.preview = None
        if section.preview.every:
            self.preview = Preview(section.preview, sampling, section.device_batch, backbone, work / "preview")
        self.pictures: list[tuple[int, list[np.ndarray]]] = []
        self.told = {"train": 0, "guard": 0}

    def resume(self, rows: Rows, looks: Rows) -> None:
        """Go on after the iterations `rows` and the guard's `looks`: what is of later ones is removed."""
        self.told = {"train": len(rows), "guard": len(looks)}
        for late in [path for path in (self.out / KEPT).glob("*") if path.name > _name(len(rows))]:
            shutil.rmtree(late)
        if self.preview:
            self.preview.forget_after(len(rows))
        if rows:
            write_curves(self.out, self.columns, rows, looks)
        self._publish(*(path.relative_to(self.out).as_posix() for path in self.out.glob(f"{KEPT}/*")))
        self._publish("curves.csv", "guard.csv", PAGE)

    def at(self, iteration: int, end: bool = False) -> None:
        """Keep the LoRA, and look at it, where that is due after `iteration` iterations; at the `end` look anyway."""
        every = self.section.keep_every
        if every and iteration and iteration % every == 0:
            export_lora(self.backbone, self.out / KEPT / _name(iteration))
            self._publish(f"{KEPT}/{_name(iteration)}")
        if self.pictures and self.pictures[-1][0] == iteration:
            return  # looked at when the guard ended training there
        if self.preview and (end or iteration % self.section.preview.every == 0):
            self.pictures.append((iteration, self.preview.look(iteration)))
            write_bytes(self.out / PAGE, self.preview.page(iteration, self.last))
            self._publish(PAGE)

    def saved(self, rows: Rows, looks: Rows, end: bool = False) -> None:
        """Write the curves, and tell the loggers what is new since the checkpoint before.

        Pictures that were drawn before an iteration which is not done are drawn again by the run that goes on, and told
        by that; at the `end` none follows.
        """
        write_curves(self.out, self.columns, rows, looks)
        self._publish("curves.csv", "guard.csv")
        news = [("train", row) for row in rows[self.told["train"] :]]
        news += [("guard", row) for row in looks[self.told["guard"] :]]
        pictures = [own for own in self.pictures if end or own[0] < len(rows)]
        self.pictures = self.pictures[len(pictures) :]
        steps = sorted({int(row["iteration"]) for _, row in news} | {step for step, _ in pictures})
        for step in steps:  # in their order, which some loggers ask for
            for images in [own for at, own in pictures if at == step]:
                self.loggers.pictures(dict(zip(self._titles(), images, strict=True)), step)
            for group, row in news:
                if row["iteration"] == step:
                    self.loggers.values(group, {k: v for k, v in row.items() if k != "iteration"}, step)
        self.told = {"train": len(rows), "guard": len(looks)}

    def finish(self, rows: Rows, looks: Rows) -> None:
        """The look at the end, and what a pipeline expects to find even where it is empty."""
        self.at(len(rows), end=True)
        self.saved(rows, looks, end=True)
        (self.out / KEPT).mkdir(parents=True, exist_ok=True)
        if not self.preview:
            write_bytes(self.out / PAGE, empty_page())

    def _titles(self) -> list[str]:
        """Of the pictures; some loggers make file names of them."""
        prompts = self.section.preview.prompts
        return [f"preview/{n} {re.sub(r'[^a-zA-Z0-9 ]', '', prompt)[:60]}" for n, prompt in enumerate(prompts, 1)]

    def _publish(self, *names: str) -> None:
        """Put files or folders of the working folder where they can be seen, as far as they are there."""
        for name in names if self.live else []:
            source = self.out / name
            files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
            for file in files:
                if file.exists() and self.live:
                    write_bytes(self.live / file.relative_to(self.out), file.read_bytes())


def _name(iteration: int) -> str:
    return f"iteration-{iteration:07d}"
