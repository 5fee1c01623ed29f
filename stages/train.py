"""Everything above → the LoRA, the discriminator, curves and metrics."""

from __future__ import annotations

from comat.errors import main_guard
from comat.models.lock import pinned
from comat.params import load
from comat.running.launch import launch_where_asked
from comat.running.stage import options, publish


@main_guard
def main() -> None:
    args = options(
        __doc__,
        [
            "models",
            "prompts",
            "entities",
            "prompt_embeddings",
            "warmup",
            "reference_latents",
            "image_latents",
            "caption_entities",
        ],
        "train",
    )
    params = pinned(
        load(args.params),
        args.models,
        "base_model",
        "vae",
        "captioner_model",
        "captioner_0_model",
        "captioner_1_model",
        "captioner_2_model",
        "segmenter_model",
        "sam_model",
        "text_encoder",
        "discriminator_model",
        "guard_feature_model",
        "guard_clip_model",
    )

    launch_where_asked("stages.train")

    from comat.diffusion.load import load_backbone
    from comat.running.device import use_deterministic_algorithms
    from comat.running.distributed import join
    from comat.tokenizers import find_columns, load_tokenizers
    from comat.training import loggers
    from comat.training.data import TrainingData
    from comat.training.preview import check_prompts
    from comat.training.trainer import Trainer

    check_prompts(params.train.preview, load_tokenizers(params.base_model, params.base_revision))
    use_deterministic_algorithms(params.train.deterministic)
    own = [args.prompts, args.entities, args.prompt_embeddings, args.warmup]
    inputs = [*own, args.reference_latents, args.image_latents, args.caption_entities]
    values = params.model_dump(exclude={"train": {"report_to"}})  # another logger makes no other run
    # A result that stands there whole is left alone until the new one is.
    live = None if (args.out / "lora").exists() else args.out
    with (
        join(params.device) as processes,
        processes.directory("train", values, args.models, inputs) as work,
        loggers.started(params.train.report_to if processes.main else [], work, params.model_dump()) as told,
    ):
        data = TrainingData(
            params,
            params.discriminator_input,
            params.train.guard,
            args.prompts,
            args.entities,
            args.reference_latents,
            args.image_latents,
            args.caption_entities,
            find_columns(params.base_model, params.base_revision),
        )
        if data.held_out and processes.main:
            print(f"{args.image_latents}: {data.held_out} images are left out: their captions are evaluation prompts")
        backbone = load_backbone(params, args.warmup, args.prompt_embeddings)
        trainer = Trainer(params, backbone, data, work, processes, live, told)
        trainer.run()
        if processes.main:
            trainer.export(work / "out")
            publish(work / "out", args.out)


if __name__ == "__main__":
    main()
