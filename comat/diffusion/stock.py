"""How the text-to-image pipelines of diffusers are asked for what is drawn here."""

from __future__ import annotations

import inspect

from comat.models.families import BY_PIPELINE


def stock_options(pipeline: type, guidance: float, count: int | None = None) -> dict[str, object]:
    """The options of a pipeline's call that stand for `guidance`, and for nothing done to prompts and sizes.

    Args:
        guidance: 1 is the prompt alone, as in this project's parameters; pipelines count from elsewhere (Z-Image), or
            are guided by a negative prompt and a scale of another name (Qwen-Image).
        count: of the prompts; None where the call has a single one that is no list.
    """
    takes = inspect.signature(pipeline.__call__).parameters
    # PixArt, Sana: another size than asked for, silently; and where bs4 and ftfy are there, other words.
    options: dict[str, object] = {name: False for name in ("use_resolution_binning", "clean_caption") if name in takes}
    own = takes.get("true_cfg_scale")
    if own is not None and own.default is not None and own.default > 1:  # guided by this alone
        empty = " " if count is None else [" "] * count
        return options | ({"true_cfg_scale": guidance, "negative_prompt": empty} if guidance > 1 else {})
    family = BY_PIPELINE.get(pipeline.__name__)
    scale = guidance - 1 + (family.unguided if family else 1)
    named = next((name for name in ("guidance_scale", "prior_guidance_scale") if name in takes), None)
    return options | ({named: scale} if named else {})
