"""The stream's stages: which there are, what they take of the cluster, and when judge and captioner share one actor."""

from typing import Any

import pyarrow as pa
import pytest

from curation.stage import Resources, Stage
from pipelines import recipe, stream

VLLM = ["caption.backend=vlm", "vlm.model=m"]


def names(sets: list[str]) -> list[str]:
    return [stage.name for stage in stream.stages(recipe.load("local", sets))]


def test_the_local_stream() -> None:
    found = names([])
    assert found[:2] == ["SplitVideo", "ScoreClips_rules"]
    assert found[-2:] == ["CaptionClips", "CutClips"]


def test_an_engine_lives_in_actors() -> None:
    for sets, actors in (([], None), (VLLM, 1), ([*VLLM, "resources.caption.actors=4"], 4), ([*VLLM, "vlm.backend=openai"], None)):
        assert stream.caption_stage(recipe.load("local", sets)).resources.actors == actors


def test_judge_and_captioner_share_one_actor_where_both_ask_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    local = recipe.load("local", VLLM)
    assert not stream.shares_engine(local)
    before = names([])[-3]
    monkeypatch.setattr(stream, "shares_engine", lambda _: True)
    found = stream.stages(local)
    assert [stage.name for stage in found][-2:] == [f"{before}_CaptionClips", "CutClips"]
    assert found[-2].resources.actors == 1


def test_a_chain_is_its_stages_one_after_the_other() -> None:
    def plus(value: int) -> Any:
        return lambda: lambda table: pa.table({"x": [x * 2 + value for x in table["x"].to_pylist()]})

    first, second = (Stage(name=name, make=plus(value), resources=Resources(num_cpus=2, actors=3)) for name, value in (("A", 1), ("B", 5)))
    both = stream.chained(first, second)
    assert (both.name, both.resources) == ("A_B", first.resources)
    assert both.run(pa.table({"x": [1, 2]})).to_pydict() == {"x": [11, 15]}  # type: ignore[union-attr]


def test_a_stage_that_yields_cannot_stand_in_a_chain() -> None:
    chain = stream.Chain([lambda: lambda table: iter([table])])
    with pytest.raises(TypeError, match="cannot stand in a chain"):
        chain(pa.table({"x": [1]}))


def test_recaptioning_opens_no_source(tmp_path: Any) -> None:
    from curation.storage import Storage

    found = stream.recaption_stages(recipe.load("local"), Storage(tmp_path))
    assert [stage.name for stage in found] == ["RecallClips", "CaptionClips"]
