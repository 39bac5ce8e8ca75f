"""Dedup: groups of clips that show the same, by equal pixels or by near vectors; who of a group stays; splits that no group straddles."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curation.embed import EmbedConfig, unpack_vectors

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Pair = tuple[str, str, float]

ROUNDS = 10
"""Lloyd iterations of k-means: clusters only bring candidates together, and need not be the best ones."""

PROBES = 2
"""Clusters that a clip is looked for in: its nearest and the next, since a pair may lie on both sides of a border."""

SAMPLE = 100_000
"""Vectors that the centres are fitted on at most."""

TILE = 1024
"""Rows compared at a time: a cosine matrix of 4 MB."""

SCHEMA = pa.schema([("clip_id", pa.string()), ("group", pa.string()), ("kind", pa.string()), ("similarity", pa.float32()), ("best", pa.bool_())])


class DedupConfig(EmbedConfig):
    """How duplicates among the kept clips are found, and what becomes of them."""

    similarity: float = Field(
        0.65,
        gt=0,
        le=1,
        description="cosine from which clips are near duplicates; SSCD: unrelated ones lie below 0.2, copies above 0.7; open_clip: 0.95",
    )
    policy: Literal["reject", "keep"] = Field("reject", description="reject: only the best of a group is kept; keep: all are, and never in both splits")
    cluster_clips: int = Field(1000, ge=2, le=1_000_000, description="clips a cluster on average; all of a cluster are compared with one another")


@dataclass(frozen=True)
class Member:
    """A clip that has a duplicate.

    Attributes:
        clip_id, video_id: who it is.
        group: the least clip id of its group.
        kind: "exact" where its pixels are another's, else "near".
        similarity: highest cosine with another clip of the group; 1 where exact.
        best: whether it is the one to keep: most pixels, then least BRISQUE, then least id.
    """

    clip_id: str
    video_id: str
    group: str
    kind: Literal["exact", "near"]
    similarity: float
    best: bool


def find(clips: pa.Table, config: DedupConfig) -> list[Member]:
    """The members of all groups among `clips`, by group and id; the same whatever the rows' order or the number of workers.

    Args:
        clips: rows with clip_id, video_id, width, height, embedding, content_sha256 and, where it was measured, quality_brisque.

    Raises:
        ValueError: a clip has no embedding.
    """
    rows = sorted(clips.to_pylist(), key=lambda row: str(row["clip_id"]))
    if lacking := [row["clip_id"] for row in rows if row["embedding"] is None or row["content_sha256"] is None]:
        raise ValueError(f"dedup: {len(lacking)} clips have no embedding, such as {lacking[0]}: begin again with dedup.enabled=true")
    video = {row["clip_id"]: row["video_id"] for row in rows}
    # What follows within one video looks alike and is no copy: only equal pixels count there.
    near = [pair for pair in near_pairs({row["clip_id"]: row["embedding"] for row in rows}, config) if video[pair[0]] != video[pair[1]]]
    exact = _equal(rows)
    highest: dict[str, float] = {}
    for a, b, cosine in [*near, *exact]:
        highest[a], highest[b] = max(highest.get(a, 0.0), cosine), max(highest.get(b, 0.0), cosine)
    same = {clip for a, b, _ in exact for clip in (a, b)}
    root = components([(a, b) for a, b, _ in [*near, *exact]])
    by_id, groups = {row["clip_id"]: row for row in rows}, dict[str, list[str]]()
    for clip in sorted(root):
        groups.setdefault(root[clip], []).append(clip)
    best = {min(members, key=lambda c: _worth(by_id[c])) for members in groups.values()}
    return [
        Member(clip, by_id[clip]["video_id"], group, "exact" if clip in same else "near", round(highest[clip], 4), clip in best)
        for group, members in sorted(groups.items())
        for clip in members
    ]


def _worth(row: Mapping[str, Any]) -> tuple[int, float, str]:
    """Sorts the best first."""
    brisque = row.get("quality_brisque")
    return -int(row["width"] or 0) * int(row["height"] or 0), math.inf if brisque is None else float(brisque), str(row["clip_id"])


def _equal(rows: Sequence[Mapping[str, Any]]) -> list[Pair]:
    """Neighbours among the clips of equal pixels."""
    same: dict[str, list[str]] = {}
    for row in rows:
        same.setdefault(row["content_sha256"], []).append(row["clip_id"])
    return [(a, b, 1.0) for clips in same.values() for a, b in pairwise(clips)]


def rejected(members: Iterable[Member], config: DedupConfig) -> dict[str, list[str]]:
    """{clip id: reasons} of what the policy takes out."""
    return {m.clip_id: ["near_duplicate"] for m in members if not m.best} if config.policy == "reject" else {}


def split_keys(members: Iterable[Member]) -> dict[str, str]:
    """{video id: the video id that decides its split}: videos whose clips share a group go the same way."""
    videos: dict[str, set[str]] = {}
    for member in members:
        videos.setdefault(member.group, set()).add(member.video_id)
    return components([pair for group in videos.values() for pair in pairwise(sorted(group))])


def table_of(members: Iterable[Member]) -> pa.Table:
    """The groups as they are recorded beside the shards."""
    return pa.Table.from_pylist([{name: vars(m)[name] for name in SCHEMA.names} for m in members], schema=SCHEMA)


def components(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """{node: least node of its connected component} of the nodes in `pairs` (union-find)."""
    parent: dict[str, str] = {}

    def top(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in pairs:
        low, high = sorted((top(a), top(b)))
        parent[high] = low
    return {node: top(node) for node in parent}


# ---- near pairs: k-means, then cosines inside clusters ------------------------------------------------------------------------------


def near_pairs(texts: Mapping[str, str], config: DedupConfig) -> list[Pair]:
    """(clip, clip, cosine) of the pairs at or above `config.similarity`, sorted.

    With more clips than one cluster holds, and Ray at hand, assignment and comparison run on the cluster, a task a cluster of clips.

    Source: SemDeDup (Abbas et al., 2023): k-means, then cosine within clusters.
    """
    ids = sorted(texts)
    if len(ids) < 2:
        return []
    table = pa.table({"clip_id": ids, "embedding": pa.array([texts[clip] for clip in ids], pa.string())})
    centres = fit(table, max(1, math.ceil(len(ids) / config.cluster_clips)))
    found = _on_ray(table, centres, config.similarity) if len(centres) > 1 and _ray_is_up() else _here(table, centres, config.similarity)
    return sorted({(a, b, round(cosine, 6)) for a, b, cosine in found})


def means(table: pa.Table) -> F32:
    """Unit float32 [n, D]: each clip's mean over its pictures."""
    vectors = np.stack([unpack_vectors(text).mean(0) for text in table["embedding"].to_pylist()])
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


def fit(table: pa.Table, clusters: int) -> F32:
    """Unit centres float32 [clusters, D] by spherical k-means, begun at clips whose ids' hashes are least: nothing is drawn by chance."""
    order = np.argsort([hashlib.sha256(clip.encode()).hexdigest() for clip in table["clip_id"].to_pylist()])
    if clusters == 1:
        return means(table.slice(0, 1))
    sample = means(table.take(pa.array(order[:SAMPLE])))
    centres = sample[:clusters].copy()
    for _ in range(ROUNDS):
        nearest = np.argmax(sample @ centres.T, axis=1)
        for k in range(clusters):
            mine = sample[nearest == k]
            if len(mine):
                centre = mine.mean(0)
                centres[k] = centre / max(float(np.linalg.norm(centre)), 1e-12)
    return centres


def assigned(table: pa.Table, centres: F32) -> pa.Table:
    """The rows once for each of their `PROBES` nearest clusters, with the column `cluster`."""
    nearest = np.argsort(-(means(table) @ centres.T), axis=1, kind="stable")[:, : min(PROBES, len(centres))]
    rows = np.repeat(np.arange(table.num_rows), nearest.shape[1])
    return table.take(pa.array(rows)).append_column("cluster", pa.array(nearest.reshape(-1).astype(np.int64)))


def compared(table: pa.Table, similarity: float) -> pa.Table:
    """The pairs of one cluster's clips (columns a < b and cosine) at or above `similarity`.

    Their means bring two clips together; what counts is the mean over each one's pictures of the cosine with the other's most alike picture, so that a
    shifted clip is found and one alike picture among three does not suffice.
    """
    table = table.sort_by("clip_id")
    ids, texts, centre = table["clip_id"].to_pylist(), table["embedding"].to_pylist(), means(table)
    vectors, found = dict[int, F32](), list[tuple[str, str, float]]()
    for first in range(0, len(ids), TILE):
        close = np.argwhere(centre[first : first + TILE] @ centre.T >= similarity - 0.1)
        for i, j in ((int(r) + first, int(c)) for r, c in close if int(r) + first < int(c)):
            for k in (i, j):
                if k not in vectors:
                    vectors[k] = unpack_vectors(texts[k])
            cosines = vectors[i] @ vectors[j].T
            cosine = float((cosines.max(0).mean() + cosines.max(1).mean()) / 2)
            if cosine >= similarity:
                found.append((ids[i], ids[j], min(cosine, 1.0)))
    a, b, cosine_of = zip(*found, strict=True) if found else ((), (), ())
    return pa.table({"a": pa.array(a, pa.string()), "b": pa.array(b, pa.string()), "cosine": pa.array(cosine_of, pa.float64())})


def _here(table: pa.Table, centres: F32, similarity: float) -> list[Pair]:
    """The pairs, cluster by cluster in this process."""
    rows = assigned(table, centres)
    parts = [compared(rows.filter(pc.equal(rows["cluster"], k)), similarity) for k in sorted(set(rows["cluster"].to_pylist()))]
    return [pair for part in parts for pair in _pairs(part)]


def _on_ray(table: pa.Table, centres: F32, similarity: float) -> list[Pair]:
    """The same as one Ray Data stream: assign, group by cluster, compare."""
    import ray

    step = max(1, math.ceil(table.num_rows / max(1, 2 * int(ray.cluster_resources().get("CPU", 1)))))
    blocks = [table.slice(i, step).combine_chunks() for i in range(0, table.num_rows, step)]
    rows = ray.data.from_arrow(blocks).map_batches(assigned, fn_kwargs={"centres": centres}, batch_format="pyarrow", batch_size=None)
    pairs = rows.groupby("cluster").map_groups(compared, fn_kwargs={"similarity": similarity}, batch_format="pyarrow")
    return [pair for part in pairs.iter_batches(batch_format="pyarrow", batch_size=None) for pair in _pairs(part)]


def _pairs(table: pa.Table) -> list[Pair]:
    return list(zip(table["a"].to_pylist(), table["b"].to_pylist(), table["cosine"].to_pylist(), strict=True)) if table.num_rows else []


def _ray_is_up() -> bool:
    import sys

    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
