"""The contract of questions and answers: what is shown, what binds an answer to it, and what counts as an answer."""

import json
from typing import Any

import numpy as np
import pytest

from curation.frames import SIGNALS, Frames
from curation.vlm import Answer, Prompt, Question, Scripted, VlmConfig, frames_sha256, parsed, shown

PROMPT = Prompt(name="content", version="content/1", system="You judge clips.", text="Is it a lecture?")
SCHEMA = {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"], "additionalProperties": False}


def frames(n: int = 9) -> Frames:
    rgb = np.zeros((n, 8, 8, 3), np.uint8) + np.arange(n, dtype=np.uint8)[:, None, None, None]
    return Frames(rgb, rgb[..., 0].copy(), 3 + np.arange(n) / 4, np.full(n, 1 / 15, np.float32), 4.0, {name: np.zeros(n, np.float32) for name in SIGNALS})


def question(**other: Any) -> Question:
    return Question("clip-1", frames(), PROMPT, **other)


@pytest.mark.parametrize(("most", "rows"), [(64, range(9)), (9, range(9)), (5, [0, 2, 4, 6, 8]), (2, [0, 8])])
def test_shown_are_first_and_last_and_evenly_spread_ones(most: int, rows: Any) -> None:
    pictures, times = shown(frames(), most)
    assert pictures[:, 0, 0, 0].tolist() == list(rows)
    assert times == [row / 4 for row in rows]


def test_pixels_times_and_shape_change_the_hash_and_nothing_else_does() -> None:
    pictures, times = shown(frames(), 64)
    known = frames_sha256(pictures, times)
    assert frames_sha256(pictures.copy(), [t + 1e-9 for t in times]) == known
    other = pictures.copy()
    other[3, 1, 1, 1] ^= 1
    assert len({known, frames_sha256(other, times), frames_sha256(pictures, [t + 1e-3 for t in times]), frames_sha256(pictures[:, :4], times)}) == 4


def test_the_prompts_hash_tells_system_from_text() -> None:
    assert PROMPT.sha256 != Prompt("content", "content/1", "You judge", " clips.Is it a lecture?").sha256
    assert len(PROMPT.sha256) == 64


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"n": 3}', {"n": 3}), ('{"n": 3.5}', {"n": 3.5}), ('{"n": NaN}', None), ('{"n": Infinity}', None), ('{"n": "3"}', None), ('{"n": 3', None), ("", None)],
)
def test_an_answer_fits_its_schema_or_has_a_fault(text: str, value: Any) -> None:
    found, fault = parsed(text, question(schema=SCHEMA))
    assert found == value
    assert (fault is None) == (value is not None)


def test_control_characters_in_a_text_are_for_the_check_to_refuse() -> None:
    def check(value: Any) -> None:
        if "\x02" in value["t"]:
            raise ValueError("control character")

    schema = {"type": "object", "properties": {"t": {"type": "string"}}}
    assert parsed('{"t": "a\x02b"}', question(schema=schema))[0] == {"t": "a\x02b"}
    assert parsed('{"t": "a\x02b"}', question(schema=schema, check=check)) == (None, "control character")


def test_a_question_has_a_schema_or_choices() -> None:
    with pytest.raises(ValueError, match="a schema or choices, not both"):
        question(schema=SCHEMA, choices=("yes", "no"))


def test_a_record_is_json_without_the_parsed_value() -> None:
    (answer,) = Scripted(lambda _: "yes", chosen=lambda _: (-0.1, -2.4)).answer([question(choices=("yes", "no"))])
    record = json.loads(answer.record())
    assert (record["text"], record["logprobs"], record["clip_id"], record["reason"]) == ("yes", [-0.1, -2.4], "clip-1", None)
    assert "value" not in record
    assert set(record) == set(vars(Answer("c", "p", "v", "f"))) - {"value"}


def test_identity_is_who_is_asked_and_what_is_shown() -> None:
    one = VlmConfig(model="m", url="http://a/v1", timeout_s=1, concurrency=2, key_env="K")
    assert one.identity() == VlmConfig(model="m", url="http://b/v1").identity()
    for change in ({"model": "n"}, {"revision": "2"}, {"adapter": "/a"}, {"max_pictures": 8}, {"pictures": "png"}, {"choices_by": "vllm"}):
        assert one.model_copy(update=change).identity() != one.identity()
