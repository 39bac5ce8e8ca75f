"""A Qwen2.5-VL of 0.7 million random weights, in a folder as vLLM and transformers open it, made in a second or two without a network."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

#: In the model's own order; the first is the pad token, the third ends a turn.
_NAMES = [
    "endoftext",
    "im_start",
    "im_end",
    "object_ref_start",
    "object_ref_end",
    "box_start",
    "box_end",
    "quad_start",
    "quad_end",
    "vision_start",
    "vision_end",
    "vision_pad",
    "image_pad",
    "video_pad",
]
SPECIAL = [f"<|{name}|>" for name in _NAMES]
#: What the tokenizer is trained on: words that our prompts and answers use, and the two choices as tokens of their own.
TEXT = ["yes no yes no true false null the a clip video shows person hand camera moves left right up down lifts opens cup door text"] * 8
TEXT += [
    '{"chunks": [{"action": "a hand lifts a cup", "actors": ["hand"], "camera": "still"}], "text": "0 1 2 3 4 5 6 7 8 9", "start_s": 0.0, "end_s": 2.5}'
] * 8
#: ChatML with a vision placeholder, which is what Qwen2.5-VL was trained on. Source: the Qwen2.5-VL model card.
TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] -%}
{% if part['type'] == 'text' %}{{ part['text'] }}{% elif 'video' in part['type'] %}<|vision_start|><|video_pad|><|vision_end|>
{%- elif 'image' in part['type'] %}<|vision_start|><|image_pad|><|vision_end|>{% endif -%}
{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
PATCH, MERGE, PATCH_FRAMES = 14, 2, 2


def build(folder: Path, seed: int = 0, gain: float = 1.0, size: Literal["tiny", "7b"] = "tiny") -> Path:
    """Writes config, weights (float32), tokenizer, chat template and processor files into `folder`.

    Args:
        folder: is made; what it holds of an earlier build is written over.
        seed: of the weights; the same seed gives the same bytes.
        gain: factor on weights of variance 1 / fan-in; the larger, the more an answer depends on what is shown.
        size: "7b" writes no weights: a model of Qwen2.5-VL-7B's shape, for vLLM's load_format="dummy".
    """
    from transformers import Qwen2_5_VLForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(folder)
    if size == "tiny":
        model = Qwen2_5_VLForConditionalGeneration(_config(ids)).float().eval()
        _fill(model, seed, gain)
        model.save_pretrained(folder, safe_serialization=True)
    else:
        config = _config(ids, TEXT_7B, VISION_7B)
        config.architectures = [Qwen2_5_VLForConditionalGeneration.__name__]
        config.save_pretrained(folder)
    _write_generation(folder, ids)
    _write_processor(folder, side=8 if size == "tiny" else 27)
    return folder


def _write_tokenizer(folder: Path) -> dict[str, int]:
    """Trains a byte-level BPE and writes it; returns the special tokens' ids and under "" the number of all."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=480, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    # "yes no" as one text would only give " no": each choice also stands alone.
    made.train_from_iterator([*TEXT, *["yes", "no"] * 8], trainer)
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    made.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": 32768,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": SPECIAL[1:],
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "errors": "replace",
        "split_special_tokens": False,
        "unk_token": None,
        "bos_token": None,
    }
    _write(folder / "tokenizer_config.json", settings)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    state = json.loads((folder / "tokenizer.json").read_text())["model"]
    _write(folder / "vocab.json", state["vocab"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    return {"": made.get_vocab_size(), **{token: made.token_to_id(token) for token in SPECIAL}}


#: What differs in the 7B model. Source: the config.json of Qwen/Qwen2.5-VL-7B-Instruct.
TEXT_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
VISION_7B = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584, "fullatt_block_indexes": [7, 15, 23, 31]}


def _config(ids: dict[str, int], text_changes: Mapping[str, Any] | None = None, vision_changes: Mapping[str, Any] | None = None) -> Any:
    from transformers import Qwen2_5_VLConfig

    text: dict[str, Any] = {
        "vocab_size": -(-ids[""] // 64) * 64,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": False,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": 128,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": PATCH_FRAMES,
        "window_size": 112,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
        "hidden_act": "silu",
    }
    special = {f"{name}_token_id": ids[f"<|{token}|>"] for name, token in SPECIAL_IDS}
    return Qwen2_5_VLConfig(
        text_config=text | dict(text_changes or {}),
        vision_config=vision | dict(vision_changes or {}),
        **special,
        tie_word_embeddings=False,
        dtype="bfloat16" if text_changes else "float32",
    )


SPECIAL_IDS = (("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"), ("vision_end", "vision_end"))


def _fill(model: Any, seed: int, gain: float) -> None:
    """Random weights, each layer of a scale that neither dies nor explodes; the embedding of unit variance."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim < 2:
                continue  # norms stay 1, biases 0
            fan_in = 1 if "embed_tokens" in name else weight[0].numel()
            weight.copy_(torch.randn(weight.shape, generator=generator) * gain * fan_in**-0.5)


def _write_generation(folder: Path, ids: dict[str, int]) -> None:
    """Greedy, and the turn's end ends the answer."""
    end = {"eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]], "pad_token_id": ids["<|endoftext|>"], "do_sample": False}
    _write(folder / "generation_config.json", end)


def _write_processor(folder: Path, side: int) -> None:
    """Both of the older files, pictures of at most `side` merged patches squared: vLLM 0.29 cannot read the one in which transformers 5 joins them."""
    common = {
        "patch_size": PATCH,
        "temporal_patch_size": PATCH_FRAMES,
        "merge_size": MERGE,
        "min_pixels": (PATCH * MERGE) ** 2,
        "max_pixels": (PATCH * MERGE * side) ** 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    common["size"] = {"shortest_edge": common["min_pixels"], "longest_edge": common["max_pixels"]}
    image = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor", "do_resize": True, "do_convert_rgb": True}
    video = {"video_processor_type": "Qwen2VLVideoProcessor", "processor_class": "Qwen2_5_VLProcessor", "do_resize": True, "do_sample_frames": False}
    _write(folder / "preprocessor_config.json", {**common, **image})
    _write(folder / "video_preprocessor_config.json", {**common, **video, "cap_pixels_per_frame": True})


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
