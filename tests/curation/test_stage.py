"""A stage's function is built once a process and run as tasks or in a pool of actors, with the same rows out."""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from curation.stage import Resources, Stage


def doubling() -> Callable[[pa.Table], pa.Table]:
    def double(table: pa.Table) -> pa.Table:
        return pa.table({"n": [2 * n for n in table["n"].to_pylist()]})

    return double


def fanning() -> Callable[[pa.Table], Iterator[pa.Table]]:
    def fan(table: pa.Table) -> Iterator[pa.Table]:
        for n in table["n"].to_pylist():
            yield pa.table({"n": [n, n + 100]})

    return fan


def test_a_function_is_built_once_for_each_stage() -> None:
    built = []

    def make() -> Callable[[pa.Table], pa.Table]:
        built.append(1)
        return doubling()

    first, second = Stage(name="Double", make=make), Stage(name="Double", make=make)
    table = pa.table({"n": [3]})
    assert [s.run(table)["n"].to_pylist() for s in (first, first, second, second)] == [[6]] * 4  # type: ignore[index]
    assert len(built) == 2


@pytest.mark.parametrize("actors", [None, 1])
def test_tasks_and_actors_give_the_same_rows(ray_local: None, actors: int | None) -> None:
    import ray

    data = ray.data.from_arrow([pa.table({"n": [n]}) for n in range(4)])
    for stage in (
        Stage(name="Fan", make=fanning, resources=Resources(num_cpus=0.5)),
        Stage(name="Double", make=doubling, resources=Resources(num_cpus=0.5, actors=actors, batch_size=2)),
    ):
        data = stage.apply(data)
    assert sorted(row["n"] for row in data.take_all()) == sorted([2 * n for n in range(4)] + [2 * (n + 100) for n in range(4)])


def test_resources_out_of_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="num_cpus"):
        Resources(num_cpus=0)
    with pytest.raises(ValueError, match="actors"):
        Resources(actors=0)
