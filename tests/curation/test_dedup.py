"""Dedup on made vectors: who is grouped, who stays, and that neither order, clusters nor Ray change it."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from curation.dedup import DedupConfig, Member, components, find, near_pairs, rejected, split_keys, table_of
from curation.embed import content_sha256, pack_vectors, unpack_vectors
from curation.frames import SIGNALS, Frames

CONFIG = DedupConfig(enabled=True)


def unit(rng: np.random.Generator, count: int = 3, width: int = 64) -> np.ndarray:
    vectors = rng.standard_normal((count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def near(vectors: np.ndarray, rng: np.random.Generator, cosine: float) -> np.ndarray:
    """Vectors with about this cosine to the given ones."""
    other = unit(rng, *vectors.shape)
    other -= (other * vectors).sum(1, keepdims=True) * vectors
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    return cosine * vectors + np.sqrt(1 - cosine**2) * other


def row(clip: str, vectors: np.ndarray, video: str = "", size: int = 100, brisque: float | None = 20.0, content: str = "") -> dict[str, object]:
    return {
        "clip_id": clip,
        "video_id": video or f"video-{clip}",
        "width": size,
        "height": size,
        "quality_brisque": brisque,
        "embedding": pack_vectors(vectors),
        "content_sha256": content or hashlib.sha256(clip.encode()).hexdigest(),
    }


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_copies_are_grouped_strangers_are_not_and_the_largest_stays(rng: np.random.Generator) -> None:
    a, b = unit(rng), unit(rng)
    found = find(table(row("1", a, size=90), row("2", near(a, rng, 0.9), size=200), row("3", b), row("4", near(a, rng, 0.3))), CONFIG)
    assert [(m.clip_id, m.group, m.kind, m.best) for m in found] == [("1", "1", "near", False), ("2", "1", "near", True)]
    assert found[0].similarity == pytest.approx(0.9, abs=0.03)
    assert rejected(found, CONFIG) == {"1": ["near_duplicate"]}
    assert rejected(found, DedupConfig(policy="keep")) == {}


def test_equal_size_is_decided_by_brisque_then_by_id(rng: np.random.Generator) -> None:
    a = unit(rng)
    kept = lambda *rows: [m.clip_id for m in find(table(*rows), CONFIG) if m.best]  # noqa: E731
    assert kept(row("1", a, brisque=40.0), row("2", a, brisque=20.0), row("3", a, brisque=None)) == ["2"]
    assert kept(row("2", a), row("1", a)) == ["1"]


def test_equal_pixels_are_exact_whatever_their_vectors(rng: np.random.Generator) -> None:
    found = find(table(row("1", unit(rng), content="x"), row("2", unit(rng), content="x"), row("3", unit(rng))), CONFIG)
    assert [(m.clip_id, m.kind, m.similarity) for m in found] == [("1", "exact", 1.0), ("2", "exact", 1.0)]


def test_one_alike_picture_of_three_does_not_suffice_and_a_shift_does_not_hide(rng: np.random.Generator) -> None:
    a, b = unit(rng), unit(rng)
    assert find(table(row("1", a), row("2", np.concatenate([a[:1], b[1:]]))), CONFIG) == []
    assert len(find(table(row("1", a), row("2", np.roll(a, 1, axis=0))), CONFIG)) == 2


def test_pieces_of_one_video_are_no_copies_of_one_another_unless_their_pixels_are_equal(rng: np.random.Generator) -> None:
    a = unit(rng)
    assert find(table(row("1", a, video="v"), row("2", near(a, rng, 0.95), video="v")), CONFIG) == []
    assert len(find(table(row("1", a, video="v", content="x"), row("2", a, video="v", content="x")), CONFIG)) == 2


def test_groups_are_transitive() -> None:
    assert components([("b", "a"), ("d", "c"), ("c", "b"), ("y", "z")]) == {"a": "a", "b": "a", "c": "a", "d": "a", "y": "y", "z": "y"}


def test_neither_order_nor_clusters_change_what_is_found(rng: np.random.Generator) -> None:
    rows = [row(f"{i:03}", unit(rng)) for i in range(80)]
    rows += [row(f"copy{i:03}", near(unpack_vectors(rows[i]["embedding"]), rng, 0.9)) for i in range(0, 80, 4)]
    one = find(table(*rows), CONFIG)
    assert len(one) == 40
    assert find(table(*rng.permutation(rows)), CONFIG) == one
    assert find(table(*rows), DedupConfig(cluster_clips=20)) == one


@pytest.mark.ray
def test_ray_finds_the_same_pairs(rng: np.random.Generator, ray_local: object) -> None:
    texts = {f"{i:03}": pack_vectors(unit(rng)) for i in range(60)}
    texts |= {f"copy{i:03}": pack_vectors(near(unpack_vectors(texts[f"{i:03}"]), rng, 0.9)) for i in range(0, 60, 5)}
    on_ray, alone = near_pairs(texts, DedupConfig(cluster_clips=20)), near_pairs(texts, DedupConfig(cluster_clips=1000))
    assert [pair[:2] for pair in on_ray] == [pair[:2] for pair in alone] == [(f"{i:03}", f"copy{i:03}") for i in range(0, 60, 5)]


def test_videos_that_share_a_group_share_a_split() -> None:
    members = [Member(c, v, g, "near", 0.9, True) for c, v, g in (("1", "v1", "1"), ("2", "v9", "1"), ("3", "v9", "3"), ("4", "v5", "3"), ("5", "v7", "5"))]
    assert split_keys(members) == {"v1": "v1", "v5": "v1", "v9": "v1"}


def test_a_clip_without_vectors_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="have no embedding, such as 2"):
        find(table(row("1", unit(rng)), {**row("2", unit(rng)), "embedding": None}), CONFIG)


def test_vectors_survive_the_row_and_the_groups_their_table(rng: np.random.Generator) -> None:
    vectors = unit(rng)
    assert np.abs(unpack_vectors(pack_vectors(vectors)) - vectors).max() < 1e-3
    assert table_of([Member("1", "v", "1", "near", 0.9, True)]).to_pylist()[0]["group"] == "1"


def test_content_is_the_pixels_and_the_clock_not_the_place() -> None:
    def clip(start_s: float, value: int, step_s: float = 0.25) -> Frames:
        rgb = np.full((4, 8, 8, 3), value, np.uint8)
        times = start_s + step_s * np.arange(4)
        return Frames(rgb, rgb[..., 0].copy(), times, np.zeros(4, np.float32), 4.0, {name: np.zeros(1, np.float32) for name in SIGNALS})

    assert content_sha256(clip(0.0, 7)) == content_sha256(clip(33.4, 7))
    assert len({content_sha256(c) for c in (clip(0, 7), clip(0, 8), clip(0, 7, 0.2))}) == 3
