"""Sources: what a scan takes, what a list's faults are and on which line, who is a duplicate of whom."""

import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from curation.clips import clip_schema
from curation.opening import content_id
from curation.sources import SourceErrors, SourcesConfig, find, identify, mark_duplicates, video_table
from curation.uris import check_output, glob_regex, local_path, plan_inputs, uri_of


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def uris(*inputs: object, config: SourcesConfig | None = None) -> list[str]:
    return [s.uri for s in find([str(i) for i in inputs], config)]


def faults(*inputs: object) -> list[str]:
    with pytest.raises(SourceErrors) as caught:
        find([str(i) for i in inputs])
    return list(caught.value.faults)


def test_a_folder_is_read_in_depth_sorted_and_without_companions(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/z.MOV", "a/noextension", "a/v1.5.final", "a/x.json", "b.srt", ".hidden.mp4", ".git/c.mp4"):
        put(tmp_path / name)
    assert uris(tmp_path) == [str(tmp_path / n) for n in ("a/noextension", "a/v1.5.final", "a/z.MOV", "b.mp4")]


@pytest.mark.parametrize("name", ["-dash.mp4", "new\nline.mp4", "qu'o\"te.mp4", "%03d.mp4", "\U0001f600.mp4", "n" * 236 + ".mp4", "concat:a|b.mp4", "[1].mp4"])
def test_hostile_names_come_through_a_folder_a_glob_and_by_name(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / name)
    assert uris(tmp_path) == uris(f"{tmp_path}/*.mp4") == uris(path) == [str(path)]


def test_a_name_that_is_not_utf8_survives_and_can_be_read_again(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9 1.mp4")
    Path(os.fsdecode(path)).write_bytes(b"abc")
    (uri,) = uris(tmp_path)
    assert uri == f"file://{tmp_path}/caf%E9%201.mp4"
    assert os.fsencode(local_path(uri) or "") == path
    assert content_id(uri)[0] == hashlib.sha256(b"abc").hexdigest()[:16]
    assert identify(video_table(find([str(tmp_path)])))["video_uri"].to_pylist() == [uri]


def test_folders_fifos_and_links_named_like_videos_are_items_with_a_reason(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside.mp4")
    root = tmp_path / "in"
    put(root / "folder.mp4" / "inner.mp4", b"inner")
    os.mkfifo(root / "fifo.mp4")
    (root / "link.mp4").symlink_to(outside)
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    (root / "up").symlink_to(tmp_path)
    rows = identify(video_table(find([str(root)]))).to_pylist()
    assert {Path(r["video_uri"]).name: r["error_code"] for r in rows} == {
        "fifo.mp4": "not_regular_file",
        "folder.mp4": "not_regular_file",
        "inner.mp4": None,
        "link.mp4": "not_regular_file",
        "loop.mp4": "not_regular_file",
    }


def test_links_are_followed_only_when_asked_and_only_inside(tmp_path: Path) -> None:
    put(tmp_path / "outside.mp4")
    inside = put(tmp_path / "in" / "real" / "a.mp4")
    (tmp_path / "in" / "b.mp4").symlink_to(inside)
    (tmp_path / "in" / "c.mp4").symlink_to(tmp_path / "outside.mp4")
    assert [Path(u).name for u in uris(tmp_path / "in")] == ["b.mp4", "c.mp4", "a.mp4"]
    assert [Path(u).name for u in uris(tmp_path / "in", config=SourcesConfig(follow_symlinks=True))] == ["c.mp4", "a.mp4"]


def test_a_csv_with_bom_crlf_and_blank_lines_carries_its_provenance(tmp_path: Path) -> None:
    put(tmp_path / "videos" / "a b.mp4")
    listed = put(tmp_path / "list.csv", '\ufefflicence,uri,"note"\r\n\r\nCC-BY-4.0,videos/a b.mp4,"two\r\nlines"\r\nCC0,/abs/b.mp4,\r\n\r\n'.encode())
    assert [(s.uri, json.loads(s.provenance), s.origin) for s in find([str(listed)])] == [
        ("/abs/b.mp4", {"licence": "CC0", "note": ""}, f"{listed}:5"),
        (str(tmp_path / "videos/a b.mp4"), {"licence": "CC-BY-4.0", "note": "two\r\nlines"}, f"{listed}:3"),
    ]


def test_jsonl_and_parquet_lists_give_the_same_as_csv(tmp_path: Path) -> None:
    rows = [{"uri": "a.mp4", "uploader": "x"}, {"uri": "../b.mp4", "uploader": "y"}]
    (tmp_path / "l").mkdir()
    put(tmp_path / "l/a.jsonl", "\n\n".join(map(json.dumps, rows)).encode())
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "l/a.parquet")
    put(tmp_path / "l/a.csv", b"uri,uploader\na.mp4,x\n../b.mp4,y\n")
    found = [[(s.uri, s.provenance) for s in find([str(tmp_path / "l" / f"a.{kind}")])] for kind in ("jsonl", "parquet", "csv")]
    assert found[0] == found[1] == found[2] == [(str(tmp_path / "b.mp4"), '{"uploader": "y"}'), (str(tmp_path / "l/a.mp4"), '{"uploader": "x"}')]


def test_all_faults_of_all_inputs_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    text = b"uri,licence\na.mp4,x\n\nhttps://e.org/v.mp4,x\n,x\na.mp4,y\nb.mp4\nftp://h/c.mp4,x\ns3://key:secret@bucket/d.mp4,x\n\xff.mp4,\xff\n"
    listed = put(tmp_path / "list.csv", text)
    bare = put(tmp_path / "bare.csv", b"url\na.mp4\n")
    lines = put(tmp_path / "l.jsonl", b'{"uri": 5}\n[1]\n{"uri"\n{"uri": "a\\u0000b"}\n{"uri": "n", "x": NaN}\n')
    told = faults(listed, bare, lines, tmp_path / "none", tmp_path / "*.mkv", "https://e.org/list.csv")
    assert [t.replace(str(tmp_path) + "/", "").split(": ")[0] for t in told] == [
        *(f"list.csv:{n}" for n in (4, 5, 6, 7, 8, 9, 10)),
        "bare.csv:1",
        *(f"l.jsonl:{n}" for n in (1, 2, 3, 4, 5)),
        "none",
        "*.mkv",
        "https://e.org/list.csv",
    ]
    assert "URL inputs are off" in told[0]
    assert "listed twice, first in line 2" in told[2]
    assert "1 fields, but the header has 2" in told[3]
    assert not any("secret" in t for t in told)
    assert all("\n" not in t for t in told)


def test_a_broken_list_is_a_fault_and_no_exception(tmp_path: Path) -> None:
    broken = put(tmp_path / "a.csv", b'uri\n"open quote')
    empty = put(tmp_path / "b.csv", b"")
    fake = put(tmp_path / "c.parquet", b"not parquet")
    os.mkfifo(tmp_path / "d.csv")
    told = faults(broken, empty, fake, tmp_path / "d.csv")
    assert [t.split(": ")[0] for t in told] == [f"{broken}:2", f"{empty}:1", str(fake), str(tmp_path / "d.csv")]


def test_one_file_in_a_folder_and_in_a_list_is_one_source_with_the_lists_provenance(tmp_path: Path) -> None:
    put(tmp_path / "a.mp4")
    one, two = put(tmp_path / "1.csv", b"uri,licence\na.mp4,x\n"), put(tmp_path / "2.csv", b"uri,licence\na.mp4,y\n")
    for order in ((tmp_path, one), (one, tmp_path)):
        assert [s.provenance for s in find([str(i) for i in order])] == ['{"licence": "x"}']
    assert "with another provenance" in faults(one, two)[0]


def test_an_empty_folder_and_an_empty_list_are_empty_corpora(tmp_path: Path) -> None:
    assert uris(tmp_path) == uris(put(tmp_path / "l.csv", b"uri,licence\n")) == []
    assert identify(video_table([])).num_rows == mark_duplicates(identify(video_table([]))).num_rows == 0


def test_objects_of_a_bucket_are_listed_globbed_and_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("set/a.mp4", "set/deep/b.mp4", "set/c.json"):
        put(tmp_path / "bucket" / name, name.encode())
    put(tmp_path / "bucket/set/list.csv", b"uri\ndeep/b.mp4\ns3://nobucket/x.mp4\ns3://nobucket/y.mp4\n")

    class Remote:
        from_uri = staticmethod(lambda uri: (pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem()), uri.removeprefix("s3://")))

    monkeypatch.setattr("curation.sources.FileSystem", Remote)
    monkeypatch.setattr("curation.opening.FileSystem", Remote)
    monkeypatch.setattr("curation.source_lists.FileSystem", Remote)
    assert uris("s3://bucket/set") == uris("s3://bucket/set/**.mp4") == ["s3://bucket/set/a.mp4", "s3://bucket/set/deep/b.mp4"]
    assert uris("s3://bucket/set/*.mp4") == uris("s3://bucket/set/a.mp4") == ["s3://bucket/set/a.mp4"]
    assert content_id("s3://bucket/set/a.mp4")[0] == hashlib.sha256(b"set/a.mp4").hexdigest()[:16]
    assert faults("s3://bucket/set/list.csv", "s3://bucket/none", "s3://bucket/set/*.avi") == [
        "s3://bucket/set/list.csv:3: s3://nobucket: no such bucket",
        "s3://bucket/set/list.csv:4: s3://nobucket: no such bucket",
        "s3://bucket/none: no such object, folder or bucket",
        "s3://bucket/set/*.avi: this pattern matches nothing",
    ]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [("a/*.mp4", "a/b.mp4", "a/b/c.mp4"), ("a/**/c.mp4", "a/c.mp4", "a/xc.mp4"), ("a/[!b].mp4", "a/c.mp4", "a/b.mp4"), ("a/?(1).x", "a/b(1).x", "a/bb(1).x")],
)
def test_glob_regex(pattern: str, yes: str, no: str) -> None:
    import re

    assert re.fullmatch(glob_regex(pattern), yes)
    assert not re.fullmatch(glob_regex(pattern), no)


def test_licences_are_judged_before_a_byte_is_read(tmp_path: Path) -> None:
    put(tmp_path / "l.csv", b"uri,license\na.mp4,cc-by-4.0\nb.mp4,All rights reserved\nc.mp4,\n")
    put(tmp_path / "a.mp4")
    os.mkfifo(tmp_path / "b.mp4")
    table = video_table(find([str(tmp_path / "l.csv")]), SourcesConfig(licences=("CC-BY-4.0",)))
    assert identify(table)["error_code"].to_pylist() == [None, "policy_licence", "policy_licence"]
    assert table["error_detail"].to_pylist()[1:] == [
        "licence 'All rights reserved' is not in the allow-list",
        "no licence is given, and there is an allow-list",
    ]
    assert set(video_table(find([str(tmp_path / "l.csv")]))["status"].to_pylist()) == {"ok"}


def test_the_id_is_of_the_content_and_a_file_that_cannot_be_read_has_its_reason(tmp_path: Path) -> None:
    put(tmp_path / "l.csv", b"uri\nfull.mp4\nempty.mp4\nnone.mp4\n")
    put(tmp_path / "full.mp4", b"content" * 1000000)
    put(tmp_path / "empty.mp4", b"")
    table = identify(video_table(find([str(tmp_path / "l.csv")])))
    assert table.schema == clip_schema()
    assert table["error_code"].to_pylist() == ["unsupported_container", None, "io_error"]
    assert table["video_id"][1].as_py() == hashlib.sha256(b"content" * 1000000).hexdigest()[:16]
    assert len(set(table["video_id"].to_pylist())) == 3


def test_the_first_uri_is_the_video_and_the_others_its_duplicates_in_any_order(tmp_path: Path) -> None:
    for name, content in (("b.mp4", b"1"), ("a.mp4", b"1"), ("c.mp4", b"1"), ("d.mp4", b"2"), ("e.mp4", b""), ("f.mp4", b"")):
        put(tmp_path / name, content)
    table = identify(video_table(find([str(tmp_path)])))
    expected = ["ok", "duplicate", "duplicate", "ok", "failed", "failed"]
    marked = mark_duplicates(table)
    assert marked["status"].to_pylist() == expected
    assert marked["error_detail"].to_pylist()[1:4] == [f"same bytes as {tmp_path}/a.mp4"] * 2 + [None]
    assert marked.schema == table.schema
    assert mark_duplicates(table.take([5, 2, 0, 4, 1, 3])).sort_by("video_uri") == marked
    assert mark_duplicates(marked) == marked


def test_an_output_inside_an_input_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in/a.mp4")
    for out, given in (("in/out", "in"), ("in", "in"), ("in/x/y", "in/**/*.mp4"), ("in/a.mp4", "in/a.mp4")):
        with pytest.raises(ValueError, match="lies inside the input"):
            check_output(str(tmp_path / out), [str(tmp_path / given)])
    for out, given in (("out", "in"), ("in2", "in"), ("in/out", "in/*.mp4"), ("in/out", "in/a.mp4")):
        check_output(str(tmp_path / out), [str(tmp_path / given)])
    with pytest.raises(ValueError, match="lies inside"):
        check_output("s3://b/in/out/", ["s3://b/in/"])
    check_output("s3://b/inside", ["s3://b/in"])


def test_uris_of_plain_paths_are_the_paths() -> None:
    assert uri_of("/a/b c.mp4") == local_path("/a/b c.mp4") == "/a/b c.mp4"
    assert local_path("s3://bucket/a.mp4") is None
    assert local_path("file:///a/%FF%20b") == "/a/\udcff b"


def test_the_plan_knows_inputs_by_their_place_and_not_by_how_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert plan_inputs(["a/", "s3://b/c/", "./a", f"file://{tmp_path}/a"]) == plan_inputs(["s3://b/c", "a"]) == [f"{tmp_path}/a", "s3://b/c"]
