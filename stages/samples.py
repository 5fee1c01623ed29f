"""The base model's samples → images of the tuned model from the same noise, and its attention maps."""

from __future__ import annotations

from comat.errors import main_guard
from comat.models.lock import pinned
from comat.params import load
from comat.stage import options, publish


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "base_samples", "warmup", "train"], "samples")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    from comat.evaluation.sampling import draw_tuned
    from comat.workdir import stage_directory

    with stage_directory("samples", params, [args.base_samples, args.warmup, args.train / "lora"]) as work:
        draw_tuned(params, args.base_samples, args.warmup / "unet", args.train / "lora", work / "out")
        publish(work / "out", args.out)


if __name__ == "__main__":
    main()
