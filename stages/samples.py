"""Held-out prompts x seeds → images of the base and the tuned model from the same noise, and attention maps."""

from __future__ import annotations

from comat.errors import main_guard
from comat.models.lock import pinned
from comat.params import load
from comat.stage import options, publish


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "prompts", "entities", "warmup", "train"], "samples")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    from comat.evaluation.sampling import draw_samples
    from comat.workdir import stage_directory

    inputs = [args.prompts, args.entities, args.warmup, args.train / "lora"]
    with stage_directory("samples", params, inputs) as work:
        draw_samples(params, args.prompts, args.entities, args.warmup / "unet", args.train / "lora", work / "out")
        publish(work / "out", args.out)


if __name__ == "__main__":
    main()
