"""The base model's samples → images of the tuned model from the same noise, and its attention maps."""

from __future__ import annotations

from comat.errors import main_guard
from comat.models.lock import pinned
from comat.params import load
from comat.running.launch import launch_where_asked
from comat.running.stage import options, publish


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "base_samples", "prompt_embeddings", "warmup", "train"], "samples")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    launch_where_asked("stages.samples")

    from comat.running.distributed import join
    from comat.samples.draw import draw_tuned

    base, warmup, lora = args.base_samples, args.warmup, args.train / "lora"
    inputs = [base, args.prompt_embeddings, warmup, lora]
    values = params.model_dump()
    with join(params.device) as processes, processes.directory("samples", values, args.models, inputs) as work:
        draw_tuned(
            params,
            params.samples.batch_size,
            base,
            warmup,
            lora,
            work / "out",
            processes,
            embeddings=args.prompt_embeddings,
        )
        if processes.main:
            publish(work / "out", args.out)


if __name__ == "__main__":
    main()
