"""TextEncoder: transformers' numbers, zeros behind the text, tokenizers that fit."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import UMT5Config, UMT5EncoderModel

from training.model.spec import SPECS, TextSpec
from training.model.text import END, ByteTokenizer, TextEncoder, cleaned, open_tokenizer, padded

SPEC = SPECS["debug"].text
TEXTS = ["turn left", "go", ""]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(SPEC).eval().requires_grad_(False)


def test_each_text_is_what_transformers_gives_it_alone(encoder: TextEncoder) -> None:
    torch.manual_seed(1)
    config = UMT5Config(
        vocab_size=272, d_model=48, d_kv=12, d_ff=96, num_heads=4, num_layers=2, feed_forward_proj="gated-gelu", dropout_rate=0.1, tie_word_embeddings=False
    )
    theirs = UMT5EncoderModel(config).eval()
    theirs.load_state_dict(encoder.network.state_dict())
    for text, states in zip(TEXTS, encoder.encode_unpadded(TEXTS), strict=True):
        ids = [3 + byte for byte in text.encode()] + [1]
        wanted = theirs(input_ids=torch.tensor([ids])).last_hidden_state[0]
        assert states.shape == (len(ids), 48)
        torch.testing.assert_close(states, wanted, atol=1e-5, rtol=0)


def test_behind_a_text_stand_zeros_up_to_the_fixed_length(encoder: TextEncoder) -> None:
    batch = encoder.encode(TEXTS)
    assert batch.shape == (3, 16, 48)
    for row, states in zip(batch, encoder.encode_unpadded(TEXTS), strict=True):
        assert torch.equal(row[: len(states)], states)
        assert row[len(states) :].abs().max() == 0
        assert row[: len(states)].abs().min(dim=1).values.max() > 0


def test_a_text_is_the_same_in_any_batch(encoder: TextEncoder) -> None:
    alone = encoder.encode(["go"])
    torch.testing.assert_close(encoder.encode(["go", "turn to the left"])[:1], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(encoder.encode(["no"]), alone, atol=1e-3)


def test_a_long_text_keeps_its_beginning_and_its_end_token(encoder: TextEncoder) -> None:
    ids = encoder.ids("x" * 40)
    assert ids == [3 + ord("x")] * 15 + [END]
    assert encoder.encode(["x" * 40]).shape == (1, 16, 48)


def test_texts_are_cleaned() -> None:
    assert cleaned("  a &amp;amp; b\n\t c ") == "a & b c"


def test_padding_lets_gradients_through() -> None:
    states = [torch.ones(2, 3, requires_grad=True), torch.ones(1, 3, requires_grad=True)]
    padded(states, 4).sum().backward()
    assert [float(each.grad.sum()) for each in states if each.grad is not None] == [6, 3]


def test_padding_refuses_a_text_that_is_too_long() -> None:
    with pytest.raises(ValueError, match="padding a text of 5 tokens to 4"):
        padded([torch.zeros(2, 3), torch.zeros(5, 3)], 4)


def test_no_text_is_refused_and_the_empty_text_is_one(encoder: TextEncoder) -> None:
    assert encoder.ids("") == [END]
    with pytest.raises(ValueError, match="encoding no texts"):
        encoder.encode([])


def test_a_tokenizer_file_is_read_and_its_end_token_is_ours(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "turn": 3, "left": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(["</s>"])
    words.save(str(tmp_path / "tokenizer.json"))
    encoder = TextEncoder(SPEC, open_tokenizer(tmp_path))
    assert encoder.ids("turn right") == [3, 2, 1]
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("turn </s> left").ids == [3, 1, 4]
    assert encoder.ids("turn </s> left").count(END) == 1  # no action can end its text


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no tokenizer there \(tokenizer.json or spiece.model\)"):
        open_tokenizer(tmp_path)


def test_a_tokenizer_of_another_model_is_refused() -> None:
    class Wide:
        def encode(self, text: str, /) -> list[int]:
            return [5, 999]

    with pytest.raises(ValueError, match="token id 999 of 'turn' is beyond the vocabulary of 272"):
        TextEncoder(SPEC, Wide()).encode(["turn"])


@pytest.mark.parametrize("vocab", [100, 256384])
def test_no_model_with_another_vocabulary_reads_bytes(vocab: int) -> None:
    encoder = TextEncoder(TextSpec(vocab=vocab, d_model=8, d_kv=4, d_ff=8, heads=2, layers=1, tokens=16))
    with pytest.raises(ValueError, match=rf"a vocabulary of {vocab} is not that of bytes \(259\); give the model's own tokenizer"):
        encoder.encode(["turn"])


def test_bytes_are_their_own_tokens() -> None:
    assert ByteTokenizer().encode("aé") == [3 + 97, 3 + 0xC3, 3 + 0xA9]


def test_published_size() -> None:
    with torch.device("meta"):
        whole = TextEncoder(TextSpec())
    assert sum(p.numel() for p in whole.parameters()) == 5_680_910_336
