"""Small random vision-language models in hub layout: real architectures, processors and templates of a few families."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as T
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TURN = ("<|im_start|>", "<|im_end|>")
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
FAMILIES = ("idefics3", "qwen2_vl", "qwen3_vl", "internvl", "gemma3")


def _tokenizer(special: dict[str, str], image: str, more: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Every character is a token; `special` are its image tokens, by the names that a processor asks for."""
    characters = sorted({chr(code) for code in range(32, 127)} | {"\n"})
    vocab = {text: index for index, text in enumerate([*characters, "<unk>"])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=special,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [*TURN, *more]})
    tokenizer.chat_template = TEMPLATE.replace("IMAGE", image)
    return tokenizer


def _save(folder: Path, config, processor) -> Path:
    torch.manual_seed(8)
    model = AutoModelForImageTextToText.from_config(config)
    for name, weight in model.named_parameters():
        if "mm_input_projection" in name:  # Gemma's starts at zero, where the image would not be seen
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_idefics3(folder: Path) -> Path:
    """Cuts a square image into four tiles and adds the whole."""
    names = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tiles = tuple(f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7))
    tokenizer = _tokenizer(names, "<image>", tiles)
    images = T.Idefics3ImageProcessor(
        do_image_splitting=True, size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    processor = T.Idefics3Processor(
        image_processor=images, tokenizer=tokenizer, image_seq_len=4, chat_template=tokenizer.chat_template
    )
    pad = tokenizer.pad_token_id
    config = T.Idefics3Config(
        vision_config=VISION,
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": pad},
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=pad,
    )
    return _save(folder, config, processor)


def _qwen(folder: Path, third: bool) -> Path:
    names = {
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
    }
    tokenizer = _tokenizer(names, "<|vision_start|><|image_pad|><|vision_end|>")
    patch, area = (16, 32) if third else (14, 28)
    size = {"shortest_edge": area**2, "longest_edge": (2 * area) ** 2}
    images = T.Qwen2VLImageProcessor(patch_size=patch, merge_size=2, temporal_patch_size=2, size=size)
    ids = {
        "image_token_id": tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    }
    parts = {"image_processor": images, "tokenizer": tokenizer, "chat_template": tokenizer.chat_template}
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0}
    text = TEXT | {"vocab_size": len(tokenizer)}
    eyes = {"depth": 2, "num_heads": 2, "patch_size": patch, "spatial_merge_size": 2, "temporal_patch_size": 2}
    if third:
        text |= {"head_dim": 16, "rope_parameters": rope | {"mrope_interleaved": True}}
        eyes |= {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "num_position_embeddings": 16}
        config = T.Qwen3VLConfig(text_config=text, vision_config=eyes | {"deepstack_visual_indexes": [0]}, **ids)
        return _save(folder, config, T.Qwen3VLProcessor(video_processor=T.Qwen3VLVideoProcessor(), **parts))
    text |= {"rope_parameters": rope}
    config = T.Qwen2VLConfig(
        text_config=text, vision_config=eyes | {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}, **ids
    )
    return _save(folder, config, T.Qwen2VLProcessor(video_processor=T.Qwen2VLVideoProcessor(), **parts))


def save_qwen2_vl(folder: Path) -> Path:
    return _qwen(folder, third=False)


def save_qwen3_vl(folder: Path) -> Path:
    return _qwen(folder, third=True)


def save_internvl(folder: Path) -> Path:
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = _tokenizer(names, "<IMG_CONTEXT>")
    processor = T.InternVLProcessor(
        image_processor=T.GotOcr2ImageProcessor(size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        video_processor=T.InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=tokenizer.chat_template,
    )
    config = T.InternVLConfig(
        text_config=TEXT | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        vision_config=VISION | {"image_size": [32, 32], "patch_size": [8, 8]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    return _save(folder, config, processor)


def save_gemma3(folder: Path) -> Path:
    names = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = _tokenizer(names, "<start_of_image>")
    processor = T.Gemma3Processor(
        image_processor=T.Gemma3ImageProcessor(size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=tokenizer.chat_template,
    )
    config = T.Gemma3Config(
        text_config=TEXT | {"head_dim": 16, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id},
        vision_config=VISION,
        mm_tokens_per_image=4,
        image_token_id=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
    )
    return _save(folder, config, processor)
