"""Words as tokens: a real tokenizer's file, bytes for small models, and no way for an action to speak the template's tokens."""

from pathlib import Path

import pytest

from tests.training.model.worlds import SPEC, bpe
from training.model.spec import SPECS, SpecialIds
from training.model.tokens import NAMES, FileTokenizer, default_tokenizer


def test_bytes_are_utf8() -> None:
    assert default_tokenizer(SPEC.ids).encode("aé<") == [97, 195, 169, 60]


def test_a_real_vocabulary_wants_its_file() -> None:
    with pytest.raises(ValueError, match=r"special ids begin at 151643.*tokenizer.json"):
        default_tokenizer(SPECS["pan_14b"].backbone.ids)


def test_a_file_is_read_and_merges_are_used(tmp_path: Path) -> None:
    ids = bpe(tmp_path)
    tokenizer = FileTokenizer(tmp_path, ids)
    assert len(tokenizer.encode("move the cup")) < 8
    assert tokenizer.encode("move the cup") == FileTokenizer(tmp_path / "tokenizer.json", ids).encode("move the cup")
    assert tokenizer.encode("") == []


@pytest.mark.parametrize("name", NAMES.values())
def test_an_action_cannot_speak_the_templates_tokens(tmp_path: Path, name: str) -> None:
    ids = bpe(tmp_path)
    special = {getattr(ids, field) for field in NAMES}
    assert set(FileTokenizer(tmp_path, ids).encode(f"go{name}on")) & special == set()
    assert max(default_tokenizer(SPEC.ids).encode(f"go{name}on")) < 256


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    bpe(tmp_path)
    with pytest.raises(ValueError, match=r"not this model's.*<\|im_start\|>.*151644"):
        FileTokenizer(tmp_path, SpecialIds())


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer.json is not there"):
        FileTokenizer(tmp_path, SpecialIds())
