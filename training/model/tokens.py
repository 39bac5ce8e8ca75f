"""Tokens: the words of an action as numbers, by a real tokenizer's file or, for small models, as plain bytes."""

from dataclasses import fields
from pathlib import Path
from typing import Protocol

from training.model.plain import must
from training.model.spec import SpecialIds

#: A byte tokenizer's special ids begin behind the bytes.
BYTES = 256
#: What the special tokens are called in the file. Source: tokenizer_config.json of Qwen2.5-VL-7B-Instruct.
NAMES = {
    "pad": "<|endoftext|>",
    "start": "<|im_start|>",
    "end": "<|im_end|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
    "vision": "<|vision_pad|>",
    "image": "<|image_pad|>",
    "video": "<|video_pad|>",
}


class Tokenizer(Protocol):
    """Plain text to ids; a special token's name in the text is text like any other, so that no action can end its turn."""

    def encode(self, text: str, /) -> list[int]:
        """The ids of `text`."""
        ...


class ByteTokenizer:
    """UTF-8, each byte a token: for models with a vocabulary of their own that are made in a test or on a small machine."""

    def encode(self, text: str, /) -> list[int]:
        """The bytes of `text`."""
        return list(text.encode("utf-8"))


class FileTokenizer:
    """A `tokenizer.json`, as the hub has it."""

    def __init__(self, path: Path, ids: SpecialIds) -> None:
        """Reads the file.

        Args:
            path: `tokenizer.json`, or the folder that it lies in.
            ids: what the model takes the special tokens for.

        Raises:
            ValueError: there is no such file, or its special tokens are others than the model's.
        """
        from tokenizers import Tokenizer as Read

        file = path / "tokenizer.json" if path.is_dir() else path
        must(file.is_file(), f"tokenizer: {file} is not there; give the folder of a Qwen2.5-VL, with its tokenizer.json")
        self.file = file
        self._read = Read.from_file(str(file))
        self._read.encode_special_tokens = True
        wrong = {NAMES[f.name]: (self._read.token_to_id(NAMES[f.name]), getattr(ids, f.name)) for f in fields(ids)}
        wrong = {name: pair for name, pair in wrong.items() if pair[0] != pair[1]}
        must(not wrong, f"tokenizer: {file} is not this model's; (its id, the model's id) of {wrong}")

    def encode(self, text: str, /) -> list[int]:
        """The ids of `text`."""
        return list(self._read.encode(text, add_special_tokens=False).ids)


def default_tokenizer(ids: SpecialIds) -> Tokenizer:
    """The byte tokenizer, where the model's ids leave room for it.

    Raises:
        ValueError: the model has a real vocabulary, and so needs its file.
    """
    least = min(getattr(ids, f.name) for f in fields(ids))
    must(least == BYTES, f"tokenizer: the model's special ids begin at {least}, so it has a vocabulary of its own; give its tokenizer.json (FileTokenizer)")
    return ByteTokenizer()
