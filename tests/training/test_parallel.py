"""Parallel: on any mesh of gloo ranks a step has the loss, the gradients and the weights of one process; a checkpoint of four ranks is read by any number."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.gloo_world import on_ranks
from tests.training.made_run import Data, model, settings, weights, window
from tests.training.made_world import DEBUG, PANDORA
from tests.training.model.worlds import dialogue
from training.leak import check_causal
from training.loop import Trainer
from training.loop_settings import Settings
from training.optim import tensors
from training.parallel import ParallelSettings, World, spread, world
from training.parallel_sequence import shares
from training.phases import PHASES, prepare
from training.step import LossSettings, errors, seeded

BATCHES = 4
STEPS = 2
MESHES: dict[str, tuple[dict[str, int], int]] = {
    "hsdp 1x2": ({"shard": 2}, 2),
    "hsdp 2x1": ({"replicate": 2}, 2),
    "hsdp 2x2": ({"replicate": 2, "shard": 2}, 4),
    "sequence 2": ({"sequence": 2}, 2),
    "sequence 4": ({"sequence": 4}, 4),
    "sequence 3, uneven": ({"sequence": 3}, 3),
    "shard 2 x sequence 2": ({"shard": 2, "sequence": 2}, 4),
}
#: Of the largest entry of a gradient: sums of float32 in another order; a mean in place of a sum, or a lost part, is off by a half.
CLOSE = 5e-5
#: The same of a weight: AdamW's first steps are as large for a gradient that is nothing but rounding as for any other.
CLOSE_WEIGHT = 5e-4


def learnt(folder: Path, name: str, axes: dict[str, int], mesh: World) -> tuple[Trainer, list[float]]:
    """A trainer after some steps on the batches that are this rank's, and the losses."""
    torch.manual_seed(0)
    parallel = ParallelSettings(checkpoint=True, gather="float32", **axes)
    base = settings(clip=0.5)
    glp = model("joint")
    with torch.no_grad():  # the head and the state's output begin at zero, behind which gradients vanish
        generator = torch.Generator().manual_seed(5)
        for key, parameter in glp.decoder.named_parameters():
            if key.startswith("head.head.weight") or "state_out.weight" in key:
                parameter.normal_(std=0.1, generator=generator)
    spread(glp, parallel, mesh)
    data = Data(1, joint=True)
    trainer = Trainer(glp, PHASES["joint"], data, folder / name, Settings(loop=base.loop, optim=base.optim, loss=base.loss, parallel=parallel), mesh=mesh)
    trainer.steps = 10
    every = Data(BATCHES, joint=True)._all
    losses = []
    for _ in range(STEPS):
        trainer.learn(every[mesh.data_rank :: mesh.data_ranks])
        losses.append(trainer._found.mean if trainer._found is not None else float("nan"))
    return trainer, losses


def whole(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors without shards."""
    return {name: (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).clone() for name, tensor in tensors.items()}


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Weights and clipped gradients."""
    named = [(name, parameter) for name, parameter in trainer.glp.named_parameters() if parameter.requires_grad]
    return whole({name: parameter.detach() for name, parameter in named} | {f"gradient of {name}": p.grad for name, p in named if p.grad is not None})


def off(mine: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> tuple[float, str]:
    """The largest difference, as a share of its tensor's largest entry (a tenth of it for weights), and whose it is."""
    assert set(mine) == set(other)
    share = CLOSE_WEIGHT / CLOSE
    found = ((float((mine[name] - other[name]).abs().max() / other[name].abs().max().clamp(min=1e-6)), name) for name in other)
    return max((value if name.startswith("gradient") else value / share, name) for value, name in found)


def every_mesh(folder: Path) -> dict[str, Any]:
    """On each rank: how far each mesh is from one process; a snapshot of four ranks is written and read by fewer."""
    import torch.distributed as dist

    rank, told = dist.get_rank(), dict[str, Any]()
    alone, losses = learnt(folder, f"alone_{rank}", {}, World())
    wanted, kept = state(alone), whole(tensors(alone.optimiser, alone._learning(), None))  # weights and gradients; weights and what AdamW remembers
    for name, (axes, count) in MESHES.items():
        mesh = world(ParallelSettings(**axes), "cpu", range(count))
        if rank < count:
            trainer, mine = learnt(folder, name, axes, mesh)
            told[name] = {"loss": max(abs(a - b) for a, b in zip(mine, losses, strict=True)), "off": off(state(trainer), wanted)}
            if name == "hsdp 2x1":
                told["figures"] = figures_of(trainer, rank)
            if name == "hsdp 2x2":
                with torch.no_grad():
                    errors(trainer.glp, PHASES["joint"], Data(1, joint=True)._all[0], seeded(0), settings().loss)  # as a validation; nothing stays whole
                told["local"] = sum(p.to_local().numel() for p in trainer.glp.decoder.parameters())  # type: ignore[attr-defined]
                trainer.save()
                trainer.snapshots.close()
        dist.barrier()
    for phase in ("joint", "matching", "alignment"):
        parallel = ParallelSettings(shard=4, gather="float32")
        loss, gradients = lonely(folder / phase, phase, world(parallel, "cpu"), parallel)
        one_loss, one = lonely(folder / f"{phase}_{rank}", phase, World(), ParallelSettings(gather="float32"))
        told[f"lonely {phase}"] = {"loss": abs(loss - one_loss), "off": off(gradients, one), "moved": max(float(x.abs().max()) for x in one.values())}
    told["narrow"] = narrow(folder, losses[0])
    for count in (3, 2, 1):
        mesh = world(ParallelSettings(shard=count), "cpu", range(count))
        if rank < count:
            glp = model("joint")
            spread(glp, ParallelSettings(shard=count, gather="float32"), mesh)
            trainer = Trainer(glp, PHASES["joint"], Data(4, joint=True), folder / "hsdp 2x2", settings(clip=0.5), mesh=mesh)
            assert trainer.resume()
            told[f"read by {count}"] = off(whole(tensors(trainer.optimiser, trainer._learning(), None)), kept), trainer.step
            if count == 2:
                with pytest.raises(ValueError, match="wrapped for a mesh already"):
                    prepare(glp, PHASES["joint"], ("decoder",))
        dist.barrier()
    return told


def figures_of(trainer: Trainer, rank: int) -> dict[str, float]:
    """What a line tells where each rank waits otherwise and has left out one sample of its own and one that both met."""
    heard: list[dict[str, float]] = []
    trainer._report = heard.append
    trainer.meter.parts_s = {"data": 1.0 + 4.0 * rank, "forward": 5.0}
    trainer.train.skipped |= {"both": "cut", f"s{rank}": "cut"}  # type: ignore[operator]
    trainer._since = 0.0
    trainer._log(0)
    return heard[0]


def lonely(folder: Path, phase: str, mesh: World, parallel: ParallelSettings) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and the gradients of a step for which the first rank alone has a sample; the others have blanks."""
    spec = PANDORA if phase == "alignment" else DEBUG
    glp, base = model(phase, spec), settings(clip=0.5)
    spread(glp, parallel, mesh)
    trainer = Trainer(glp, PHASES[phase], Data(1, joint=True), folder, Settings(loop=base.loop, optim=base.optim, loss=base.loss, parallel=parallel), mesh=mesh)
    trainer.steps = 10
    sample = Data(1, joint=True, spec=spec)._all[0]
    nothing = replace(window(9, spec), real_B=torch.zeros(1, dtype=torch.bool))
    blank = replace(sample, window=nothing, dialogues=[dialogue(9, spec.chunks.window_chunks)])
    assert trainer.learn([blank if mesh.data_rank else sample, blank])
    assert trainer._found is not None
    return trainer._found.mean, {name: x for name, x in state(trainer).items() if name.startswith("gradient")}


def narrow(folder: Path, wanted: float) -> tuple[float, set[torch.dtype]]:
    """A step in bfloat16 with shards gathered in bfloat16: how far its loss is from float32's, and the weights' and gradients' precision."""
    parallel = ParallelSettings(shard=2, sequence=2)
    mesh, glp, base = world(parallel, "cpu"), model("joint"), settings()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        for key, parameter in glp.decoder.named_parameters():
            if key.startswith("head.head.weight") or "state_out.weight" in key:
                parameter.normal_(std=0.1, generator=generator)
    spread(glp, parallel, mesh)
    check_causal(glp)
    loss = LossSettings(dropped=0.0)
    trainer = Trainer(
        glp, PHASES["joint"], Data(1, joint=True), folder / "narrow", Settings(loop=base.loop, optim=base.optim, loss=loss, parallel=parallel), mesh=mesh
    )
    assert trainer.learn(Data(BATCHES, joint=True)._all[mesh.data_rank :: mesh.data_ranks])
    assert trainer._found is not None
    kinds = {x.dtype for p in glp.parameters() if p.requires_grad for x in (p, p.grad) if x is not None}
    return abs(trainer._found.mean - wanted), kinds


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """What four ranks found."""
    folder = tmp_path_factory.mktemp("world")
    return folder, on_ranks(every_mesh, 4, folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MESHES)
def test_every_mesh_learns_what_one_process_learns(told: tuple[Path, list[dict[str, Any]]], name: str) -> None:
    ranks = [rank[name] for rank in told[1] if name in rank]
    assert len(ranks) == MESHES[name][1]
    for rank in ranks:
        assert rank["loss"] < 1e-5
        assert rank["off"][0] < CLOSE, rank["off"][1]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("phase", ["joint", "matching", "alignment"])
def test_ranks_that_have_no_sample_step_along_and_weigh_nothing(told: tuple[Path, list[dict[str, Any]]], phase: str) -> None:
    for rank in told[1]:
        found = rank[f"lonely {phase}"]
        assert found["loss"] < 1e-5
        assert found["off"][0] < CLOSE, found["off"][1]
        assert found["moved"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_checkpoint_of_four_ranks_is_read_by_three_two_one_and_without_ranks(told: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, ranks = told
    for count in (3, 2, 1):
        (difference, name), step = ranks[0][f"read by {count}"]
        assert difference < CLOSE, name
        assert step == STEPS
    here = Trainer(model("joint"), PHASES["joint"], Data(4, joint=True), folder / "hsdp 2x2", settings(clip=0.5))
    assert here.resume()
    before = weights(model("joint"))
    assert all(not torch.equal(value, before[name]) for name, value in weights(here.glp).items())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_bfloat16_computes_and_float32_learns(told: tuple[Path, list[dict[str, Any]]]) -> None:
    for rank in told[1]:
        off, kinds = rank["narrow"]
        assert 0 < off < 2e-2
        assert kinds == {torch.float32}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_shard_is_half_of_the_model(told: tuple[Path, list[dict[str, Any]]]) -> None:
    whole = sum(p.numel() for p in model("joint").decoder.parameters())
    assert abs(told[1][0]["local"] / whole - 0.5) < 0.01


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_line_tells_of_the_rank_that_waits_longest_and_of_what_all_have_left_out(told: tuple[Path, list[dict[str, Any]]]) -> None:
    for rank in told[1][:2]:
        assert rank["figures"]["share_data"] == 0.5
        assert rank["figures"]["left_out_samples"] == 3


def test_shares_differ_by_one_at_most() -> None:
    assert shares(28, 8) == [4, 4, 4, 4, 3, 3, 3, 3]
    assert shares(1560, 4) == [390] * 4
    with pytest.raises(ValueError, match=r"parallel\.sequence 8: there are only 4"):
        shares(4, 8)


def test_axes_must_multiply_to_the_ranks() -> None:
    assert ParallelSettings(shard=2, sequence=2).replicas(8) == 2
    with pytest.raises(ValueError, match=r"replicate \(any\) x shard 3 x sequence 1 do not give 4 ranks"):
        ParallelSettings(shard=3).replicas(4)
    with pytest.raises(ValueError, match="replicate 3 x shard 2"):
        ParallelSettings(replicate=3, shard=2).replicas(4)
    assert world(ParallelSettings()) == World()


def test_compiled_blocks_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the eager back end: what is tested is that our blocks can be traced in place, not the compiler."""
    plain, traced = model("decoder"), model("decoder")
    seen: list[nn.Module] = []
    compile_ = torch.compile

    def eager(function: Any) -> Any:
        seen.append(function)
        return compile_(function, backend="eager", dynamic=False)

    monkeypatch.setattr(torch, "compile", eager)
    spread(traced, ParallelSettings(checkpoint=False, compile=True, blocks=("decoder.blocks.*",)), World())
    assert len(seen) == 2
    batch = Data(1)._all[0]
    found = []
    for glp in (plain, traced):
        loss = glp.window_loss(batch.window, torch.Generator().manual_seed(0), dropped=0.0).loss
        loss.backward()
        found.append((loss.item(), [p.grad for p in glp.parameters() if p.requires_grad and p.grad is not None]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
