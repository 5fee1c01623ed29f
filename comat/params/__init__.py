"""`params.yaml`, typed: the paper's hyperparameters as flat keys, and one section for each stage."""

from comat.params.evaluation import (
    ClipScoreParams,
    EvaluateParams,
    FidParams,
    FrechetParams,
    GenEvalParams,
    T2ICompBenchParams,
    VlmParams,
    VqaParams,
    VqaScoreParams,
)
from comat.params.images import ImageLatentsParams, WarmupParams
from comat.params.models import (
    CAPTIONERS,
    BaseModelParams,
    CaptionerKind,
    CaptionerParams,
    Computing,
    DiscriminatorParams,
    DrawingParams,
    GroundedSamFiles,
    GroundedSamParams,
    OneCaptioner,
    SamplingParams,
    SegmenterParams,
)
from comat.params.prompts import EntitiesParams, PromptList, PromptSource, PromptsParams
from comat.params.samples import BenchmarkFiles, CocoPrompts, SamplesParams
from comat.params.section import DESCRIBE, SHOWS, Section
from comat.params.training import GuardParams, OptimizationParams, PreviewParams, StepParams, TrainParams
from comat.params.whole import Params, load

__all__ = [
    "CAPTIONERS",
    "DESCRIBE",
    "SHOWS",
    "BaseModelParams",
    "BenchmarkFiles",
    "CaptionerKind",
    "CaptionerParams",
    "ClipScoreParams",
    "CocoPrompts",
    "Computing",
    "DiscriminatorParams",
    "DrawingParams",
    "EntitiesParams",
    "EvaluateParams",
    "FidParams",
    "FrechetParams",
    "GenEvalParams",
    "GroundedSamFiles",
    "GroundedSamParams",
    "GuardParams",
    "ImageLatentsParams",
    "OneCaptioner",
    "OptimizationParams",
    "Params",
    "PreviewParams",
    "PromptList",
    "PromptSource",
    "PromptsParams",
    "SamplesParams",
    "SamplingParams",
    "Section",
    "SegmenterParams",
    "StepParams",
    "T2ICompBenchParams",
    "TrainParams",
    "VlmParams",
    "VqaParams",
    "VqaScoreParams",
    "WarmupParams",
    "load",
]
