"""What the second world's base promises, measured: `python -m comat.shapes.recipe.flow_measure`.

Captioner, segmenter, autoencoder and features are those of the first world; `measure` measures them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline

from comat.shapes.recipe.base import TRAINING_PX
from comat.shapes.recipe.measure import asked_of_base, judge_samples
from comat.shapes.recipe.tokenizers import MAX_TOKENS

GUIDANCE, STEPS = 4.0, 20


def measure_flow(base: Path, count: int = 200) -> dict[str, dict]:
    """The base on prompts with dominant and with uniform colours: right, object missing, attribute wrong."""
    pipe = StableDiffusion3Pipeline.from_pretrained(base, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    ask: dict[str, object] = {"height": TRAINING_PX, "width": TRAINING_PX, "num_inference_steps": STEPS}
    ask |= {"guidance_scale": GUIDANCE, "max_sequence_length": MAX_TOKENS}
    return {name: judge_samples(pipe, specs, f"{name} colours", ask) for name, specs in asked_of_base(count).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=200, help="that the base is asked, of each kind")
    options = parser.parse_args()
    result = {"flow": measure_flow(options.base, options.prompts)}
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
