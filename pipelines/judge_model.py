"""JudgeModel: Qwen2.5-VL with a LoRA adapter as the content filter's judge: how much likelier yes is than no, with a gradient."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from curation.config import Config
from curation.vlm import Question, VlmConfig, shown
from curation.vlm_positions import positions
from filters.content_vlm import CHOICES

if TYPE_CHECKING:
    import torch

#: The language model's attention: the layers that vLLM adapts too, and whose names no layer of the vision tower bears.
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj")


class LoraConfig(Config):
    """The adapter's size."""

    rank: int = Field(16, ge=1, le=256, description="16: what vLLM takes without being told, and enough for six yes-or-no questions")
    alpha: float = Field(32.0, gt=0, description="the adapter's weight is alpha / rank; twice the rank is usual")
    dropout: float = Field(0.05, ge=0, lt=1, description="of the adapter's input while it learns")


class JudgeModel:
    """The model that `vlm` names, frozen but for its adapter.

    Args:
        vlm: model, revision, dtype and max_pictures are read; the pictures, their times, prompts and positions are those of the engine that serves it.
        lora: the size of a new adapter; where `adapter` is given, that one is taken up.
        device: "cpu" or "cuda".

    Raises:
        ValueError: transformers or peft is not installed, the model is not there, or its tokenizer has no single token for yes and for no.
    """

    def __init__(self, vlm: VlmConfig, lora: LoraConfig, adapter: Path | None = None, device: str = "cpu") -> None:
        try:
            import peft
            import torch
            from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
        except ImportError as fault:
            raise ValueError(f"training the judge needs transformers and peft: install the extra vlm or vlm-cpu ({fault})") from fault
        dtype = {"auto": "auto", "bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[vlm.dtype]
        known = {"revision": vlm.revision} if vlm.revision and not Path(vlm.model).is_dir() else {}
        self._processor = AutoProcessor.from_pretrained(vlm.model, **known)
        base = Qwen2_5_VLForConditionalGeneration.from_pretrained(vlm.model, dtype=dtype, **known)
        self._config, self._most, self._device = base.config, vlm.max_pictures, device
        self._choices = [self._token(choice) for choice in CHOICES]
        if adapter is not None:
            self.network: Any = peft.PeftModel.from_pretrained(base, str(adapter), is_trainable=True)
        else:
            size = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(ADAPTED), bias="none")
            self.network = peft.get_peft_model(base, size)
        self.network.to(device)

    def margin(self, question: Question, network: Any = None) -> "torch.Tensor":
        """log p(yes) - log p(no), a scalar with its gradient; `network` in place of the model's own where it is wrapped for several workers."""
        return self.margins([question], network)[0]

    def margins(self, questions: Sequence[Question], network: Any = None) -> "torch.Tensor":
        """The same of several questions about one clip [N]; its pictures are prepared once."""
        import torch

        found = [(network or self.network)(**inputs, logits_to_keep=1, use_cache=False).logits[0, -1].float() for inputs in self._inputs(questions)]
        yes, no = self._choices
        return torch.stack([logits[yes] - logits[no] for logits in found])

    def trained(self) -> Iterator["torch.Tensor"]:
        """The parameters that learn."""
        return (p for p in self.network.parameters() if p.requires_grad)

    def save(self, folder: Path) -> None:
        """Writes adapter_config.json and adapter_model.safetensors."""
        self.network.save_pretrained(folder, safe_serialization=True)

    def _token(self, choice: str) -> int:
        tokens = self._processor.tokenizer.encode(choice, add_special_tokens=False)
        if len(tokens) != 1:
            raise ValueError(f"the model's tokenizer makes {len(tokens)} tokens of {choice!r}: the judge can be trained only where each choice is one")
        return int(tokens[0])

    def _inputs(self, questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
        import torch

        pictures, times = shown(questions[0].frames, self._most)
        fps = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else questions[0].frames.fps
        clock = {"fps": fps, "total_num_frames": len(times), "frames_indices": list(range(len(times))), "duration": len(times) / fps}
        video = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
        for question in questions:
            content = [{"type": "video"}, {"type": "text", "text": question.prompt.text}]
            turns = [{"role": "system", "content": question.prompt.system}, {"role": "user", "content": content}]
            text = self._processor.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            inputs = self._processor(text=[text], videos=[video], video_metadata=[clock], do_sample_frames=False, return_tensors="pt")
            yield {**{name: value.to(self._device) for name, value in inputs.items() if hasattr(value, "to")}, "position_ids": self._positions(inputs)}

    def _positions(self, inputs: Any) -> "torch.Tensor":
        import torch

        vision = self._config.vision_config
        t, h, w = inputs["video_grid_thw"][0].tolist()
        grid = (t, h // vision.spatial_merge_size, w // vision.spatial_merge_size)
        tokens, step_s = inputs["input_ids"][0].tolist(), float(inputs["second_per_grid_ts"][0])
        found = positions(tokens, self._config.video_token_id, grid, step_s, vision.tokens_per_second)
        return torch.from_numpy(found)[:, None].to(self._device)
