"""Storage: files appear whole or not at all, in a folder and in an object store."""

import hashlib
import os
import pickle
import resource
from pathlib import Path

import pyarrow.fs
import pytest

from curation import storage
from curation.storage import SCRATCH, Storage


@pytest.fixture(params=["folder", "objects"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """The same root as a folder, and through pyarrow.fs as an object store would be."""
    filesystem = None if request.param == "folder" else pyarrow.fs.LocalFileSystem()
    return Storage(tmp_path / "out", filesystem)


def test_create_keeps_the_first(out: Storage) -> None:
    assert out.create("a/b.json", b"first")
    assert not out.create("a/b.json", b"second")
    assert out.read("a/b.json") == b"first"


def test_replace_takes_the_last(out: Storage) -> None:
    out.replace("b.json", b"first")
    out.replace("b.json", b"second, longer")
    assert out.read("b.json") == b"second, longer"
    assert out.size("b.json") == 14
    assert out.sha256("b.json") == hashlib.sha256(b"second, longer").hexdigest()


def test_listing_removing_and_what_is_not_there(out: Storage) -> None:
    assert out.names("nowhere") == []
    assert out.folders("nowhere") == []
    assert out.size("nowhere") is None
    for name in ("f/2", "f/1", "f/g/3"):
        out.create(name, b"x")
    assert out.names("f") == ["1", "2"]
    assert out.folders("f") == ["g"]
    out.remove("f/1")
    out.remove("f/1")
    assert out.names("f") == ["2"]
    out.remove_folder("f")
    assert out.size("f/g/3") is None
    assert out.folders("") in ([], ["_run"])
    with pytest.raises(FileNotFoundError):
        out.read("f/2")


def test_publish_moves_a_finished_file(out: Storage) -> None:
    with out.scratch() as path:
        storage.write_file(path, b"shard")
        out.publish(path, "s/shard.tar")
    assert out.read("s/shard.tar") == b"shard"
    assert not path.exists()


def test_a_failure_before_publishing_leaves_nothing(out: Storage) -> None:
    def fail() -> None:
        with out.scratch() as path:
            path.write_bytes(b"half")
            raise ZeroDivisionError(path)

    with pytest.raises(ZeroDivisionError) as raised:
        fail()
    assert not raised.value.args[0].exists()
    assert out.names(SCRATCH) == []


def test_it_travels_to_workers(out: Storage) -> None:
    out.create("a", b"1")
    assert pickle.loads(pickle.dumps(out)).read("a") == b"1"


def test_a_link_moves_in_one_step(tmp_path: Path) -> None:
    out = Storage(tmp_path)
    out.link("shards", "packs/a")
    out.link("shards", "packs/b")
    assert os.readlink(tmp_path / "shards") == "packs/b"
    Storage(tmp_path, pyarrow.fs.LocalFileSystem()).link("other", "packs/b")
    assert not (tmp_path / "other").is_symlink()


def test_uris(tmp_path: Path) -> None:
    assert Storage(f"file://{tmp_path}").root == str(tmp_path)
    assert Storage(f"file://{tmp_path}").local
    assert Storage.at(tmp_path).path("a/b") == f"{tmp_path}/a/b"
    assert Storage.at(kept := Storage(tmp_path)) is kept
    with pytest.raises((ValueError, pyarrow.lib.ArrowInvalid)):
        Storage("nonsense://bucket/out")


def test_a_read_only_output_is_said_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError):
        Storage(tmp_path / "file").create("a", b"x")


def test_a_full_disk_is_an_error_and_leaves_nothing_that_a_reader_sees(tmp_path: Path) -> None:
    out = Storage(tmp_path)
    out.create("there", b"x")
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        code = 1
        try:
            out.replace("there", bytes(5000))
        except OSError:
            code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert out.read("there") == b"x"
    assert out.names("") == ["there"]
    assert out.names(SCRATCH) == []


def test_kill_points_count_nothing_in_production(tmp_path: Path) -> None:
    before = list(storage.reached)
    Storage(tmp_path).create("a", b"x")
    assert storage.reached == before
