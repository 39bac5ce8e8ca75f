"""Whole: a file is the old one or the new one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from curation import whole


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    assert whole.write(file, "one") == file
    assert whole.write(file, "zwei — 二").read_text("utf-8") == "zwei — 二"
    assert list(tmp_path.iterdir()) == [file]


def test_one_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    whole.write(file, "one")
    with pytest.raises(UnicodeEncodeError):
        whole.write(file, "\ud800")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        whole.write(tmp_path / "folder", "one")
    assert file.read_text("utf-8") == "one"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.json", "folder"]


def test_many_writers_at_once_leave_one_of_theirs(tmp_path: Path) -> None:
    texts = [str(n) * 10_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: whole.write(tmp_path / "a", text), texts * 4))
    assert (tmp_path / "a").read_text("utf-8") in texts
    assert len(list(tmp_path.iterdir())) == 1
