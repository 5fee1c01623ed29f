"""Which segmenter the parameters name. Apart from the package, so that one segmenter can be used without the others."""

from __future__ import annotations

import torch

from comat.params import Params
from comat.segmenters import Segmenter


def load_segmenter(params: Params, device: torch.device, dtype: torch.dtype) -> Segmenter:
    """Load the segmenter from hub ids or folders; frozen.

    Raises:
        UserError: if weights or other files of it are missing, or are of another model.
    """
    if params.segmenter == "clipseg":
        from comat.segmenters.clipseg import ClipSeg

        source = (params.segmenter_model, params.segmenter_revision)
        return ClipSeg(*source, params.segmenter_threshold, device, dtype)

    from comat.segmenters.grounded_sam import GroundedSam
    from comat.segmenters.grounding import Thresholds

    parts = {"grounded_sam": _packages, "grounded_sam_hf": _transformers}[params.segmenter]
    section = params.grounded_sam
    limits = Thresholds(section.box_threshold, section.text_threshold, section.nms_threshold)
    return GroundedSam(*parts(params, device, dtype), limits)


def _packages(params: Params, device: torch.device, dtype: torch.dtype) -> tuple:
    """Detector and masker of groundingdino-py and segment-anything."""
    from comat.segmenters.grounding_dino import GroundingDino
    from comat.segmenters.sam import SegmentAnything

    section, files = params.grounded_sam, params.grounded_sam.files
    detector = GroundingDino.load(
        params.segmenter_model,
        params.segmenter_revision,
        files.detector,
        files.detector_config,
        files.text_encoder,
        files.text_encoder_revision,
        device,
    )
    source = (section.sam_model, section.sam_revision, files.sam)
    return detector, SegmentAnything.load(*source, params.segmenter_threshold, device, dtype)


def _transformers(params: Params, device: torch.device, dtype: torch.dtype) -> tuple:
    """Detector and masker of transformers."""
    from comat.segmenters.grounded_sam_hf import GroundingDinoHF, SegmentAnythingHF

    detector = GroundingDinoHF(params.segmenter_model, params.segmenter_revision, device)
    source = (params.grounded_sam.sam_model, params.grounded_sam.sam_revision)
    return detector, SegmentAnythingHF(*source, params.segmenter_threshold, device, dtype)
