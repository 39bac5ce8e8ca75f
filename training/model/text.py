"""TextEncoder: action texts to umT5's hidden states, zero-padded to a fixed length whose zeros the decoder attends, as in Wan's training.

Shapes: B batch, L tokens, D width.
"""

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.plain import must
from training.model.spec import TextSpec
from training.model.tokens import Tokenizer

PAD, END = 0, 1
"""Source: umt5-xxl's config.json: pad_token_id, eos_token_id."""


class ByteTokenizer:
    """A token a byte of UTF-8, for models that were never trained on another: ids 3 to 258, after pad, end and unknown."""

    vocab = 3 + 256

    def encode(self, text: str, /) -> list[int]:
        """See `Tokenizer.encode`."""
        return [3 + byte for byte in text.encode()]


class FileTokenizer:
    """The tokenizer of a `tokenizer.json`, as the hub's folders have it."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer as FromFile

        self.file = path
        self._tokenizer = FromFile.from_file(str(path))
        self._tokenizer.encode_special_tokens = True  # "</s>" in a text is text

    def encode(self, text: str, /) -> list[int]:
        """See `Tokenizer.encode`."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


class PieceTokenizer:
    """The tokenizer of a sentencepiece model (`spiece.model`)."""

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        self.file = path
        self._tokenizer = SentencePieceProcessor(model_file=str(path))

    def encode(self, text: str, /) -> list[int]:
        """See `Tokenizer.encode`."""
        return list(self._tokenizer.encode(text))


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in `folder`: tokenizer.json, else spiece.model.

    Raises:
        ValueError: neither is there.
    """
    for name, kind in (("tokenizer.json", FileTokenizer), ("spiece.model", PieceTokenizer)):
        if (folder / name).is_file():
            return kind(folder / name)
    raise ValueError(f"{folder}: no tokenizer there (tokenizer.json or spiece.model); copy the one that belongs to the text encoder, such as google/umt5-xxl's")


def default_tokenizer(spec: TextSpec) -> Tokenizer:
    """The byte tokenizer, where the vocabulary is about as large as its own.

    Raises:
        ValueError: it is smaller, or that of a model which learned other tokens.
    """
    must(
        ByteTokenizer.vocab <= spec.vocab < 2 * ByteTokenizer.vocab,
        f"text: a vocabulary of {spec.vocab} is not that of bytes ({ByteTokenizer.vocab}); give the model's own tokenizer, a folder with its tokenizer.json",
    )
    return ByteTokenizer()


class TextEncoder(nn.Module):
    """transformers' umT5 encoder behind Wan's conventions; `network` is a `UMT5EncoderModel`.

    Source: Wan-Video/Wan2.1, wan/modules/t5.py: outputs are cut to the text's true length, and the decoder pads them with zeros that it attends.
    """

    def __init__(self, spec: TextSpec, tokenizer: Tokenizer | None = None) -> None:
        """Random weights of the widths in `spec`.

        Args:
            tokenizer: None for one token a byte, which only a small vocabulary of ours allows.
        """
        super().__init__()
        self.spec = spec
        self._tokenizer = tokenizer
        self.network = _umt5(spec)

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns texts into tokens.

        Raises:
            ValueError: none was given, and the model has a vocabulary of its own.
        """
        if self._tokenizer is None:
            self._tokenizer = default_tokenizer(self.spec)
        return self._tokenizer

    def encode(self, texts: Sequence[str]) -> Tensor:
        """[B, tokens, d_model] in the weights' dtype: each text's hidden states, then zeros up to `spec.tokens`."""
        return padded(self.encode_unpadded(texts), self.spec.tokens)

    def encode_unpadded(self, texts: Sequence[str]) -> list[Tensor]:
        """Hidden states [L, d_model] of each text, L <= `spec.tokens`; for storage, where zeros would be nine tenths.

        Raises:
            ValueError: no text at all, or a tokenizer whose ids go beyond the vocabulary.
        """
        if not texts:
            raise ValueError('encoding no texts: give at least one; the empty text "" is one')
        ids = [self.ids(text) for text in texts]
        longest = max(map(len, ids))
        device = self.network.shared.weight.device
        ids_BL = torch.tensor([row + [PAD] * (longest - len(row)) for row in ids], device=device)
        mask_BL = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids], device=device)
        hidden_BLD = self.network(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        return [states_LD[: len(row)] for states_LD, row in zip(hidden_BLD, ids, strict=True)]

    def ids(self, text: str) -> list[int]:
        """Token ids of the cleaned text with the end token, at most `spec.tokens`: a longer text loses its tail, as in Wan's training.

        Raises:
            ValueError: an id beyond the vocabulary.
        """
        ids = [*self.tokenizer.encode(cleaned(text))[: self.spec.tokens - 1], END]
        if max(ids) >= self.spec.vocab:
            raise ValueError(f"text: token id {max(ids)} of {text[:40]!r} is beyond the vocabulary of {self.spec.vocab}: the tokenizer is another model's")
        return ids


def padded(states: Sequence[Tensor], tokens: int) -> Tensor:
    """Texts' hidden states [L, D] to one batch [B, tokens, D] with zeros behind each.

    Raises:
        ValueError: a text is longer than `tokens`.
    """
    longest = max(len(states_LD) for states_LD in states)
    if longest > tokens:
        raise ValueError(f"padding a text of {longest} tokens to {tokens}: it was encoded for another model; cut it before it is encoded")
    return torch.stack([functional.pad(states_LD, (0, 0, 0, tokens - len(states_LD))) for states_LD in states])


def cleaned(text: str) -> str:
    """HTML entities to characters, white space to single blanks. Source: Wan2.1's tokenizer, `clean="whitespace"`, without its mending of broken encodings."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip()


def _umt5(spec: TextSpec) -> Any:
    """transformers' encoder of the widths in `spec`; everything else as in umt5-xxl."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=spec.vocab,
        d_model=spec.d_model,
        d_kv=spec.d_kv,
        d_ff=spec.d_ff,
        num_heads=spec.heads,
        num_layers=spec.layers,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=128,
        feed_forward_proj="gated-gelu",
        layer_norm_epsilon=1e-6,
        dropout_rate=0.0,  # the published 0.1 is for its training; here it is never trained
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=PAD,
    )
    return UMT5EncoderModel(config)
