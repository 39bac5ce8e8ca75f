"""The block world through the whole of `pan curate`: raw films and their list in, shards out whose rounds hold exactly the told actions."""

import json
from pathlib import Path

import numpy as np
import pytest

from curation.shards import load_manifest, open_sample
from curation.verify import verify
from curation.video import Video
from pipelines import blockworld, curate
from training.evaluation import block_corpus
from training.evaluation.block_corpus import LIST, Corpus, read_world
from training.evaluation.block_reader import read
from training.evaluation.block_words import parse
from training.evaluation.blockworld import World, after


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three films of a world with contact, one of them without an action for its second chunk."""
    folder = tmp_path_factory.mktemp("blockworld")
    assert blockworld.main([str(folder), "--videos", "3", "--rounds", "3", "--seed", "9", "--blocks", "4", "--side", "0.15"]) == 0
    rows = [json.loads(line) for line in (folder / LIST).read_text().splitlines()]
    del rows[2]["events"][1]
    (folder / LIST).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def shards(raw: Path, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    out = tmp_path_factory.mktemp("curated") / "out"
    assert curate.main([str(raw / LIST), "--out", str(out), "--recipe", "blockworld", "--set", "pack.val_share=0"]) == 0
    return out


def told(raw: Path) -> dict[str, list[str]]:
    """video -> the texts of its events."""
    rows = [json.loads(line) for line in (raw / LIST).read_text().splitlines()]
    return {Path(row["uri"]).name: [event["text"] for event in row["events"]] for row in rows}


def documents(out: Path) -> dict[str, dict[str, object]]:
    """video -> its one sample's document."""
    import pyarrow.parquet as pq

    manifest = load_manifest(out)
    clips = pq.read_table(out / manifest["files"]["clips"]["path"]).to_pylist()
    return {Path(clip["video_uri"]).name: open_sample(out, clip["clip_id"]).document for clip in clips if clip["kept"]}


def test_rounds_hold_exactly_the_told_actions(raw: Path, shards: Path) -> None:
    found = documents(shards)
    assert sorted(found) == ["train_9_000000.mp4", "train_9_000001.mp4"]
    for name, doc in found.items():
        assert [r["action"] for r in doc["rounds"]] == told(raw)[name]  # type: ignore[attr-defined]
        assert (doc["chunks"], doc["caption_backend"]) == (3, "given")
        assert doc["caption"] == "; ".join(told(raw)[name])
        assert doc["provenance"]["licence"] == "CC0-1.0"  # type: ignore[index]
    assert verify(shards).problems == []


def test_a_film_that_lacks_an_action_is_left_out_with_the_reason(shards: Path) -> None:
    summary = load_manifest(shards)["summary"]
    assert summary["reasons"] == {"caption_not_given": 1}
    assert summary["backends"]["caption"] == "given"


def test_what_the_rounds_tell_is_what_their_frames_show(raw: Path, shards: Path, tmp_path: Path) -> None:
    """The clips' own MP4s, read: in each round the blocks go where the words and the physics take them."""
    world = read_world(raw)
    assert world == World(blocks=4, side=0.15)
    for doc in documents(shards).values():
        path = tmp_path / "clip.mp4"
        path.write_bytes(open_sample(shards, str(doc["clip_id"])).mp4)
        with Video(str(path), size=world.size) as video:
            frames = [shown.rgb() for shown in video.pictures()]
        assert len(frames) == 121
        for r in doc["rounds"]:  # type: ignore[attr-defined]
            start, end = (read(world, frames[k]).positions_N2(world) for k in (r["first_frame"] - 1, r["last_frame"]))
            assert start is not None
            assert end is not None
            assert np.abs(end - after(world, start, parse(r["action"]))[-1]).max() * world.size < 2.0


def test_other_events_of_curated_films_are_not_taken_silently(raw: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed, manifest = (raw / LIST).read_text(), (shards / "manifest.json").read_bytes()
    run = [str(raw / LIST), "--out", str(shards), "--recipe", "blockworld", "--set", "pack.val_share=0"]
    try:
        (raw / LIST).write_text(listed.replace(told(raw)["train_9_000000.mp4"][0], "push the moon"))
        assert curate.main(run) == 3
        assert "other events of 1 curated videos" in capsys.readouterr().err
        assert (shards / "manifest.json").read_bytes() == manifest
    finally:
        (raw / LIST).write_text(listed)
    assert curate.main(run) == 0


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="there are train and unseen"):
        blockworld.main([str(tmp_path), "--split", "test"])
    with pytest.raises(ValueError, match="size 48"):
        blockworld.main([str(tmp_path), "--size", "48"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        blockworld.main([str(tmp_path / "file"), "--videos", "1"])
    assert blockworld.main([str(tmp_path), "--videos", "0"]) == 2
    assert (
        blockworld.main([str(tmp_path / "out"), "--videos", "1", "--rounds", "1", "--split", "unseen", "--chunk-frames", "8", "--camera", "--no-contact"]) == 0
    )
    assert "1 films of 1 actions" in capsys.readouterr().out
    (row,) = [json.loads(line) for line in (tmp_path / "out" / LIST).read_text().splitlines()]
    assert (row["split"], row["events"][0]["end_s"]) == ("unseen", 9 / 16)


@pytest.mark.parametrize(
    ("rounds", "chunk_frames", "says"),
    [
        (2, 40, "next: pan curate 'a world/videos.jsonl' --out OUT --recipe blockworld"),
        (1, 40, "too_short: they have 40 frames after the first, it keeps clips of 2 chunks of 40 or more; to curate them give --rounds 2 or more"),
        (2, 8, "too_short: they have 16 frames after the first, it keeps clips of 2 chunks of 40 or more; to curate them give no --chunk-frames"),
        (1, 8, "to curate them give --rounds 2 or more and no --chunk-frames"),
        (10, 8, "join their actions, or tell one more than once: its chunks have 40 frames, an action here takes 8; to curate them give no --chunk-frames"),
    ],
)
def test_the_next_command_is_named_only_where_it_keeps_the_films(rounds: int, chunk_frames: int, says: str) -> None:
    told = blockworld.following(Path("a world") / LIST, Corpus(world=World(chunk_frames=chunk_frames), videos=1, rounds=rounds))
    assert told.endswith(says)
    assert ("next:" in told) == ((rounds, chunk_frames) == (2, 40))


def test_a_folder_of_other_films_is_refused_and_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_corpus, "write", lambda folder, corpus, done: folder / LIST)
    films = [tmp_path / Corpus(world=World(), videos=3).name(number) for number in range(3)]
    films[0].parent.mkdir()
    for film in films:
        film.write_bytes(b"film")
    with pytest.raises(ValueError, match=r"holds 1 films that are not among these 2, videos/train_0_000002\.mp4 the first: give another folder"):
        blockworld.written(tmp_path, Corpus(world=World(), videos=2))
    with pytest.raises(ValueError, match="holds 3 films that are not among these 3"):
        blockworld.written(tmp_path, Corpus(world=World(), videos=3, seed=1))
    assert blockworld.written(tmp_path, Corpus(world=World(), videos=4)) == tmp_path / LIST
    assert [film.read_bytes() for film in films] == [b"film"] * 3


def test_films_without_events_are_refused_before_anything_is_decoded(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert curate.main([str(raw / "videos"), "--out", str(tmp_path / "out"), "--recipe", "blockworld"]) == 2
    assert "none of the 3 videos has it" in capsys.readouterr().err
    assert curate.main([str(raw / "videos"), "--out", str(tmp_path / "out"), "--recipe", "blockworld", "--dry-run"]) == 2
    assert not (tmp_path / "out" / "_run" / "plan.json").exists()
