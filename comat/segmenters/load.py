"""Which segmenter the parameters name. Apart from the package, so that one segmenter can be used without the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from comat.params import GroundedSamFiles, GroundedSamParams, SegmenterParams
from comat.segmenters import Segmenter

if TYPE_CHECKING:
    from comat.segmenters.grounded_sam import Masker
    from comat.segmenters.grounding import Detector


def load_segmenter(params: SegmenterParams, device: torch.device, dtype: torch.dtype) -> Segmenter:
    """Load the segmenter from hub ids or folders; frozen.

    Raises:
        UserError: if weights or other files of it are missing, or are of another model.
    """
    if params.segmenter == "clipseg":
        from comat.segmenters.clipseg import ClipSeg

        source = (params.segmenter_model, params.segmenter_revision)
        return ClipSeg(*source, params.segmenter_threshold, device, dtype)

    if params.segmenter == "sam3":
        from comat.segmenters.sam3 import Limits, Sam3

        own, source = params.sam3, (params.segmenter_model, params.segmenter_revision)
        assert own is not None  # `SegmenterParams` asks for it
        return Sam3(*source, Limits(own.threshold, params.segmenter_threshold, own.nms_threshold), device, dtype)

    from comat.segmenters.grounded_sam import GroundedSam
    from comat.segmenters.grounding import Thresholds

    section = params.grounded_sam
    assert section is not None  # `SegmenterParams` asks for it, and for its files where they are needed
    limits = Thresholds(section.box_threshold, section.text_threshold, section.nms_threshold)
    if params.segmenter == "grounded_sam_hf":
        return GroundedSam(*_transformers(params, section, device, dtype), limits, section.boxes_per_noun)
    assert section.files is not None
    return GroundedSam(*_packages(params, section, section.files, device, dtype), limits, section.boxes_per_noun)


def _packages(
    params: SegmenterParams,
    section: GroundedSamParams,
    files: GroundedSamFiles,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Detector, Masker]:
    """Of groundingdino-py and segment-anything."""
    from comat.segmenters.grounding_dino import GroundingDino
    from comat.segmenters.sam import SegmentAnything

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


def _transformers(
    params: SegmenterParams, section: GroundedSamParams, device: torch.device, dtype: torch.dtype
) -> tuple[Detector, Masker]:
    from comat.segmenters.grounded_sam_hf import GroundingDinoHF, SegmentAnythingHF

    detector = GroundingDinoHF(params.segmenter_model, params.segmenter_revision, device)
    source = (section.sam_model, section.sam_revision)
    return detector, SegmentAnythingHF(*source, params.segmenter_threshold, device, dtype)
