"""The dialogue's tokens: Qwen's template to the token, queries and sights where they say they are."""

from pathlib import Path

import pytest
import torch

from tests.training.model.worlds import SPEC, bpe, dialogue, spec
from training.model.dialogue import Dialogue, places, turns
from training.model.mrope import positions
from training.model.tokens import NAMES, FileTokenizer, default_tokenizer

BYTES = default_tokenizer(SPEC.ids)
#: Source: Qwen2.5-VL's chat template, and PAN section 3.2; Q stands for the queries.
TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|>{first}<|vision_end|>go 1<|im_end|>\n<|im_start|>assistant\n{Q}<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|>{second}<|vision_end|>on and on<|im_end|>\n<|im_start|>assistant\n{Q}<|im_end|>\n"
)


def test_the_tokens_are_those_of_the_template_as_one_text(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    ids = bpe(tmp_path)
    said = dialogue(1, 2)
    counts = [r.sight.tokens(SPEC.vision).count for r in said.rounds]
    assert counts == [4, 2 * 2 * 4]
    text = TEMPLATE.format(first=NAMES["image"] * counts[0], second=NAMES["video"] * counts[1], Q=NAMES["pad"] * SPEC.queries)
    wanted = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    script = turns(said, spec(ids=ids, vocab=512), FileTokenizer(tmp_path, ids))
    assert [number for turn in script for number in turn.ids] == wanted


def test_each_part_is_where_the_turn_says() -> None:
    said = dialogue(1, 3)
    script = turns(said, SPEC, BYTES)
    ids = torch.tensor([number for turn in script for number in turn.ids])
    assert set(ids[places([turn.queries for turn in script], script)].tolist()) == {SPEC.ids.pad}
    assert (ids == SPEC.ids.pad).sum() == 3 * SPEC.queries
    sights = places([turn.sight for turn in script], script)
    assert sights.tolist() == torch.nonzero((ids == SPEC.ids.image) | (ids == SPEC.ids.video)).flatten().tolist()
    words = bytes(ids[places([turn.words for turn in script], script)].tolist()).decode()
    assert words == "".join(r.action for r in said.rounds)
    # Behind the words stands the end of the turn, in front of the queries the assistant's name.
    for turn in script[1:]:
        assert turn.ids[turn.words.stop] == SPEC.ids.end
        assert bytes(turn.ids[turn.queries.start - 10 : turn.queries.start]) == b"assistant\n"


def test_queries_are_placed_as_text() -> None:
    script = turns(dialogue(1, 3), SPEC, BYTES)
    where, _ = positions([piece for turn in script for piece in turn.pieces])
    at = where[:, places([turn.queries for turn in script], script)].view(3, 3, SPEC.queries)
    assert torch.equal(at[0], at[1])
    assert torch.equal(at[0], at[2])
    assert (at.diff(dim=-1) == 1).all()
    assert (at[0, 1:, 0] > at[0, :-1, -1]).all()


def test_pieces_and_tokens_are_equally_many() -> None:
    for turn in turns(dialogue(2, 3), SPEC, BYTES):
        assert len(turn.ids) == positions(turn.pieces)[0].shape[1]


def test_a_dialogue_has_a_round() -> None:
    with pytest.raises(ValueError, match="no round"):
        Dialogue(())
