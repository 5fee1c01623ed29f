"""Samples → metrics.json, per-image scores, the evaluators, pictures, the report and the model card."""

from __future__ import annotations

from comat.errors import main_guard, say
from comat.models.lock import pinned
from comat.params import load
from comat.running.launch import launch_where_asked
from comat.running.stage import options, written_whole


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "prompts", "train", "base_samples", "samples"], "evaluate")
    params = pinned(
        load(args.params),
        args.models,
        "captioner_model",
        "captioner_0_model",
        "captioner_1_model",
        "captioner_2_model",
        "t2i_compbench_vqa_model",
        "t2i_compbench_detector_model",
        "t2i_compbench_clip_model",
        "tifa_vqa_model",
        "dpg_vqa_model",
        "dsg_vqa_model",
        "geneval_detector_model",
        "geneval_clip_model",
        "geneval2_vqa_model",
        "clip_score_clip_model",
        "hps_v2_clip_model",
        "pick_score_clip_model",
        "vqa_score_vqa_model",
        "frechet_feature_model",
        "fid_inception_model",
    )

    launch_where_asked("stages.evaluate")

    from comat.evaluation.distances import DISTANCES
    from comat.evaluation.judging import Judging
    from comat.evaluation.run import evaluate
    from comat.evaluation.scores import drawn
    from comat.models.names import named_models
    from comat.reporting.card import write_card
    from comat.reporting.pairs import read_shown, unjudged
    from comat.reporting.pictures import draw_pictures
    from comat.reporting.report import Inputs, write_likelihood, write_report
    from comat.reporting.table import result_table
    from comat.running.device import choose_device
    from comat.running.distributed import join

    files, parser = params.samples.benchmarks, params.entities.spacy_model
    with written_whole(args.out) as out:
        with join(params.device) as processes:
            device, seed = choose_device(params.device), params.seed
            judging = Judging(params.evaluate, files, parser, device, seed, params.resolution, params, params.precision)
            metrics = evaluate(judging, args.base_samples, args.samples, out, processes)
            main = processes.main
        if not main:
            return
        count = params.evaluate.grid_pairs
        judged = any(name not in DISTANCES for name in metrics)
        images = drawn(args.base_samples) + drawn(args.samples)
        shown = read_shown(out / "scores.parquet", count) if judged else unjudged(images, count)
        draw_pictures(shown, count, params.seed, args.base_samples, args.samples, out)
        write_likelihood(params, params, params.samples.batch_size, shown, out)
        values = params.model_dump()
        inputs = Inputs(args.prompts, args.train / "curves.csv", args.base_samples, args.samples)
        write_report(values, params.device, shown, inputs, out)
        write_card(params, values, named_models(params), metrics, out)
    say(result_table(metrics))


if __name__ == "__main__":
    main()
