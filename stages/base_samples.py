"""Held-out prompts x seeds → images of the base model, and its attention maps."""

from __future__ import annotations

from comat.errors import main_guard
from comat.models.lock import pinned
from comat.params import load
from comat.running.launch import launch_where_asked
from comat.running.stage import options, publish


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "prompts", "entities", "prompt_embeddings", "warmup"], "base_samples")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    launch_where_asked("stages.base_samples")

    from comat.running.distributed import join
    from comat.samples.draw import draw_base
    from comat.samples.prompt_files import benchmark_prompts

    inputs = [args.prompts, args.entities, args.prompt_embeddings, args.warmup]
    with join(params.device) as processes:
        values = params.model_dump() | {"benchmarks": benchmark_prompts(params.samples.benchmarks, params.seed)}
        with processes.directory("base_samples", values, args.models, inputs) as work:
            draw_base(
                params,
                params.samples,
                args.prompts,
                args.entities,
                args.warmup,
                work / "out",
                processes,
                embeddings=args.prompt_embeddings,
            )
            if processes.main:
                publish(work / "out", args.out)


if __name__ == "__main__":
    main()
