"""Small random Grounded-SAMs: in hub layout for transformers, as .pth files for the original packages."""

from __future__ import annotations

from pathlib import Path

import torch
from segment_anything.build_sam import _build_sam
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn
from transformers import (
    BertConfig,
    BertTokenizerFast,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
    SamConfig,
    SamImageProcessor,
    SamModel,
    SwinConfig,
)

from comat.segmenters.grounding_dino import CONFIGS, build
from comat.shapes.recipe.tokenizers import clip_tokenizer

WORDS = ["dog", "ball", "cat", "teddy", "bear", "fire", "##man"]
BERT_IDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
"""As in bert-base-uncased: transformers' Grounding DINO knows the full stop by its number."""


def grounding_tokenizer() -> BertTokenizerFast:
    names = {index: token for token, index in BERT_IDS.items()}
    vocab = {names.get(i, f"[unused{i}]"): i for i in range(1030)}
    vocab |= {word: 1030 + i for i, word in enumerate(WORDS)}
    return BertTokenizerFast(vocab=vocab, do_lower_case=True)


def bert_config() -> BertConfig:
    return BertConfig(
        vocab_size=1030 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )


def shake(model: nn.Module) -> nn.Module:
    """Random weights, so that boxes and masks depend on what is seen."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * (0.3 if weight.ndim < 2 else weight.shape[-1] ** -0.5))
    return model


def quieten(norm: nn.LayerNorm, queries: nn.Embedding) -> None:
    """Make logits small and queries differ: probabilities on both sides of a threshold, and boxes of several nouns."""
    with torch.no_grad():
        queries.weight.mul_(10)
        norm.weight.mul_(0.1)
        norm.bias.zero_()


def save_text_encoder(folder: Path) -> Path:
    grounding_tokenizer().save_pretrained(folder)
    bert_config().save_pretrained(folder)
    return folder


def save_grounding_dino(folder: Path) -> Path:
    """`detector.pth` and its configuration `config.py`, both of Swin-T's width: the package has no smaller backbone."""
    torch.manual_seed(3)
    folder.mkdir(parents=True)
    text = (CONFIGS / "GroundingDINO_SwinT_OGC.py").read_text()
    small = {"enc_layers": 1, "dec_layers": 1, "num_queries": 12, "dim_feedforward": 32}
    (folder / "config.py").write_text(text + "".join(f"{key} = {value}\n" for key, value in small.items()))
    model = shake(build(str(folder / "config.py"), str(save_text_encoder(folder / "bert")), None))
    quieten(model.transformer.decoder.norm, model.transformer.tgt_embed)
    torch.save({"model": model.state_dict()}, folder / "detector.pth")
    return folder


def save_sam(folder: Path) -> Path:
    """`sam.pth`: a narrow encoder of two layers, of which one attends globally; 1024 px as the package fixes it."""
    torch.manual_seed(4)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(shake(_build_sam(16, 2, 2, [1])).state_dict(), folder / "sam.pth")
    return folder


def small_sam() -> Sam:
    """64 px, which the package's own builders do not offer."""
    torch.manual_seed(8)
    encoder = {"img_size": 64, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2, "out_chans": 16}
    decoder = {"num_multimask_outputs": 3, "transformer_dim": 16, "iou_head_depth": 2, "iou_head_hidden_dim": 16}
    sam = Sam(
        ImageEncoderViT(**encoder, use_rel_pos=True, window_size=2, global_attn_indexes=(1,)),
        PromptEncoder(embed_dim=16, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=4),
        MaskDecoder(**decoder, transformer=TwoWayTransformer(depth=1, embedding_dim=16, num_heads=2, mlp_dim=16)),
    )
    return shake(sam)


def save_grounding_dino_hf(folder: Path) -> Path:
    torch.manual_seed(5)
    backbone = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2, out_indices=[2, 3, 4]
    )
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=bert_config(),
        num_queries=12,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        d_model=32,
    )
    model = shake(GroundingDinoForObjectDetection(config))
    quieten(model.model.decoder.layer_norm, model.model.query_position_embeddings)
    model.save_pretrained(folder)
    grounding_tokenizer().save_pretrained(folder)
    GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder


def sam3_config() -> Sam3Config:
    """56 px, four by four patches, width 32."""
    tokenizer, small = clip_tokenizer(), {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    backbone = small | {
        "model_type": "sam3_vit_model",
        "num_hidden_layers": 2,
        "image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "pretrain_image_size": 28,
        "global_attn_indexes": [1],
    }
    sizes = [[16, 16], [8, 8], [4, 4]]
    text = small | {"model_type": "clip_text_model", "num_hidden_layers": 2, "projection_dim": 16}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": 32, "eos_token_id": tokenizer.eos_token_id}
    text |= {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return Sam3Config(
        vision_config={"backbone_config": backbone, "fpn_hidden_size": 32, "backbone_feature_sizes": sizes},
        text_config=text,
        geometry_encoder_config=small | {"num_layers": 1},
        detr_encoder_config=small | {"num_layers": 1},
        detr_decoder_config=small | {"num_layers": 1, "num_queries": 12},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )


def save_sam3(folder: Path) -> Path:
    torch.manual_seed(9)
    shake(Sam3Model(sam3_config())).save_pretrained(folder)
    sides = {"size": {"height": 56, "width": 56}, "mask_size": {"height": 16, "width": 16}}
    Sam3Processor(Sam3ImageProcessor(**sides), clip_tokenizer()).save_pretrained(folder)
    return folder


def save_sam_hf(folder: Path) -> Path:
    torch.manual_seed(6)
    size = {"image_size": 64, "patch_size": 16}
    vision = {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_pos_feats": 8,
        **size,
    }
    config = SamConfig(
        vision_config=vision | {"window_size": 2, "global_attn_indexes": [1]},
        prompt_encoder_config={"hidden_size": 16, "image_embedding_size": 4, **size},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )
    shake(SamModel(config)).save_pretrained(folder)
    SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def grounded_sam_params(root: Path, kind: str) -> dict:
    """Parameters of the segmenters saved in `root`: dino, sam, dino_hf, sam_hf."""
    end, files = "_hf", None
    if kind == "grounded_sam":
        end, files = (
            "",
            {
                "detector": "detector.pth",
                "detector_config": str(root / "dino" / "config.py"),
                "sam": "sam.pth",
                "text_encoder": str(root / "dino" / "bert"),
                "text_encoder_revision": None,
            },
        )
    return {
        "segmenter": kind,
        "segmenter_model": str(root / f"dino{end}"),
        "segmenter_revision": None,
        "grounded_sam": {
            "sam_model": str(root / f"sam{end}"),
            "sam_revision": None,
            "box_threshold": 0.35,
            "text_threshold": 0.25,
            "nms_threshold": 0.8,
            "boxes_per_noun": 32,
            "files": files,
        },
    }
