"""The row language: what it chooses, how null behaves, and that nothing outside of it runs."""

import pyarrow as pa
import pytest

from pipelines import expressions
from pipelines.expressions import ExpressionError

TABLE = pa.table(
    {
        "clip_id": ["a", "b", "c", "d"],
        "motion_flow": pa.array([0.01, 0.03, None, 0.5], pa.float32()),
        "chunks": pa.array([1, 2, 3, 4], pa.int32()),
        "reject": pa.array([["static"], [], [], ["static", "subtitles"]], pa.list_(pa.string())),
        "caption": ["a dog runs", None, "camera pans left", "x"],
        "kept": [False, True, True, False],
    }
)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("motion_flow > 0.02", "bd"),
        ("motion_flow > 0.02 and chunks < 3", "b"),
        ("motion_flow > 0.02 or chunks == 3", "bcd"),
        ("not motion_flow > 0.02", "a"),
        ("0.02 < motion_flow <= 0.5", "bd"),
        ("motion_flow is None", "c"),
        ("motion_flow is not None", "abd"),
        ('"static" in reject', "ad"),
        ('"static" not in reject', "bc"),
        ('"dog" in caption', "a"),
        ('clip_id in ("a", "d")', "ad"),
        ('clip_id not in ["a", "d"]', "bc"),
        ("chunks * 2 - 1 >= -(-5)", "cd"),
        ("chunks / 2 == 0.5", "a"),
        ("kept", "bc"),
        ("kept == False", "ad"),
        ("True", "abcd"),
        ("False", ""),
        ("clip_id in ()", ""),
    ],
)
def test_chooses(text: str, ids: str) -> None:
    assert expressions.where(TABLE, text)["clip_id"].to_pylist() == list(ids)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "clip_id.upper() == 'A'",
        "motion_flow[0] > 1",
        "(lambda: 1)()",
        "[x for x in chunks]",
        "chunks ** 2 > 1",
        "chunks if kept else 1",
        "f'{chunks}' == '1'",
        "(y := chunks) > 1",
        "b'a' == clip_id",
        "1j > chunks",
        "chunks; kept",
        "",
        "motion_flow >",
        "(" * 3000,
        "chunks and kept",
        "chunks",
        "clip_id + 1 > 2",
        "clip_id > 3",
        "1 in chunks",
        "'a' in chunks",
        "chunks is 3",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError, match="--where"):
        expressions.where(TABLE, text)


def test_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(ExpressionError, match="no column 'motion_flwo'; did you mean motion_flow"):
        expressions.where(TABLE, "motion_flwo > 1")


def test_sorts_by_several_keys_with_nulls_last() -> None:
    assert expressions.sort(TABLE, ["-motion_flow"])["clip_id"].to_pylist() == ["d", "b", "a", "c"]
    assert expressions.sort(TABLE, ["motion_flow"])["clip_id"].to_pylist() == ["a", "b", "d", "c"]
    assert expressions.sort(TABLE, ["kept", "-chunks"])["clip_id"].to_pylist() == ["d", "a", "c", "b"]


def test_a_list_has_no_order() -> None:
    with pytest.raises(ExpressionError, match="no order"):
        expressions.sort(TABLE, ["reject"])
