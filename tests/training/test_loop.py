"""Loop: a model learns, a run that was stopped goes on to the bit, and bad steps leave no trace."""

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.made_run import Batch, Data, model, settings, trainer, weights, window
from training.left_out import LeftOut
from training.loop import Trainer
from training.optim import OverBudget, TrainingDiverged, gradients, total_norm
from training.phases import PHASES
from training.snapshots import MARKER, committed
from training.step import errors, seeded
from training.validation import validate


class Heard:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.figures: list[tuple[int, dict[str, float]]] = []
        self.lines: list[str] = []

    def told(self, step: int, figures: dict[str, float], line: str) -> None:
        self.figures.append((step, figures))
        self.lines += [line] if line else []

    def of(self, name: str) -> list[float]:
        return [figures[name] for _, figures in self.figures if name in figures]


@pytest.mark.parametrize("phase", ["decoder", "joint"])
def test_the_debug_model_learns_and_what_is_frozen_does_not_move(tmp_path: Path, phase: str) -> None:
    joint, heard = phase == "joint", Heard()
    run = trainer(tmp_path, phase, held=Data(2, joint=joint), watchers=[heard], epochs=15, validate_every=6)
    before, frozen = weights(run.glp), {name: p.detach().clone() for name, p in run.glp.named_parameters() if not p.requires_grad}
    assert run.run() == "epochs"
    losses = heard.of("validation_loss")
    assert losses[-1] < losses[0] - 0.07  # it begins at 2, the variance of noise minus noise
    moved = {name for name, value in weights(run.glp).items() if not torch.equal(value, before[name])}
    assert moved == set(before)
    assert all(torch.equal(p, frozen[name]) for name, p in run.glp.named_parameters() if name in frozen)


def test_what_is_validated_and_filmed_is_the_average_that_would_be_exported(tmp_path: Path) -> None:
    shown: list[dict[str, torch.Tensor]] = []
    heard = Heard()
    run = trainer(tmp_path, held=Data(1), watchers=[heard], ema=0.5, epochs=1, validate_every=2, films_every=2, films=lambda _: shown.append(weights(run.glp)))
    run.run()
    assert run.average is not None
    last, average = weights(run.glp), run.average.shadow
    assert all(torch.equal(shown[-1][name], average[name]) for name in average)
    assert any(not torch.equal(last[name], average[name]) for name in average)
    with run.average.in_place(list(run.glp.named_parameters())):
        mine = validate(run.glp, run.phase, Data(1), run.settings.loss, run.settings.loop.seed, run.mesh)
    assert heard.of("validation_loss")[-1] == mine.mean
    assert mine.mean != validate(run.glp, run.phase, Data(1), run.settings.loss, run.settings.loop.seed, run.mesh).mean


def test_figures_and_lines(tmp_path: Path) -> None:
    heard = Heard()
    trainer(tmp_path, watchers=[heard], epochs=4, held=Data(1), validate_every=4).run()
    step, figures = heard.figures[0]
    assert step == 2
    assert {"loss", "lr", "gradient_norm", "skipped_steps", "epoch", "step_s", "mfu", "hfu", "share_data", "share_backward", "chunk_0", "chunk_1"} <= set(
        figures
    )
    assert any(name.startswith("noise_") for name in figures)
    both = (figures["chunk_0"] + figures["chunk_1"]) / 2
    assert figures["loss"] == pytest.approx(both)  # windows in mid-stream hold both chunks
    assert sum(value for name, value in figures.items() if name.startswith("share_")) == pytest.approx(1)
    assert heard.lines[0].startswith("step 2/8  epoch 1/4  loss 2.")
    assert heard.lines[-1].endswith("left 0 s")
    assert "validation" in heard.lines[-1]


def timeless(entry: tuple[int, dict[str, float]]) -> tuple[int, dict[str, float]]:
    """Figures without those of the clock."""
    return entry[0], {name: value for name, value in entry[1].items() if not name.startswith(("share", "step_s", "mfu", "hfu"))}


def test_a_run_that_was_stopped_goes_on_to_the_bit(tmp_path: Path) -> None:
    one, two, three = Heard(), Heard(), Heard()
    options: dict[str, Any] = {"epochs": 3, "log_every": 1, "ema": 0.9, "windows": 1, "validate_every": 5, "patience": 3}
    whole = trainer(tmp_path / "whole", data=Data(4), held=Data(1), watchers=[one], **options)
    whole.run()
    first = trainer(tmp_path / "cut", data=Data(4), held=Data(1), watchers=[two], save_every=6, keep_last=1, **options)
    first.resume()
    for batch in [batch for _, batch in zip(range(4), first.train, strict=False)]:  # one epoch by hand, and into the second
        first.learn([batch])
    for _, batch in zip(range(2), first.train, strict=False):
        first.learn([batch])
    first._found = None  # as each step's line would leave it
    first.save()
    first.snapshots.close()
    second = trainer(tmp_path / "cut", data=Data(4), held=Data(1), watchers=[three], **options)
    assert second.run() == "epochs"
    assert second.step == whole.step == 12
    assert three.figures[0][0] == 7
    assert [timeless(entry) for entry in three.figures] == [timeless(entry) for entry in one.figures if entry[0] > 6]
    for mine, other in zip(weights(second.glp).values(), weights(whole.glp).values(), strict=True):
        assert torch.equal(mine, other)
    assert second.average is not None
    assert whole.average is not None
    assert all(torch.equal(value, whole.average.shadow[name]) for name, value in second.average.shadow.items())
    assert second.guard.state_dict() == whole.guard.state_dict()
    assert second.train.seen == whole.train.seen[6:]  # type: ignore[attr-defined]


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    trainer(tmp_path, epochs=1).run()
    again = trainer(tmp_path, epochs=1)
    assert again.run() == "epochs"
    assert again.train.seen == []  # type: ignore[attr-defined]


def test_a_run_begins_without_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / "step_00000777").mkdir()
    trainer(tmp_path, steps=1).run()
    assert [path.name for path in tmp_path.glob("step_*")] == ["step_00000001"]


def test_another_seed_or_phase_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, epochs=1).run()
    with pytest.raises(ValueError, match="its seed is 0, this run's 1"):
        trainer(tmp_path, epochs=1, seed=1).run()
    with pytest.raises(ValueError, match="its phase is 'decoder', this run's 'joint'"):
        trainer(tmp_path, "joint", epochs=1).run()


def test_a_moving_average_neither_begins_in_the_middle_nor_ends_unsaid(tmp_path: Path) -> None:
    trainer(tmp_path / "without", steps=1).run()
    with pytest.raises(ValueError, match=r"step_00000001 has no moving average of the weights, and optim\.ema is 0\.9: .* set optim\.ema=0"):
        trainer(tmp_path / "without", steps=2, ema=0.9).run()
    trainer(tmp_path / "with", steps=1, ema=0.9).run()
    again = trainer(tmp_path / "with", steps=2)
    with pytest.warns(UserWarning, match=r"has a moving average of the weights, which ends here: optim\.ema is 0"):
        again.run()
    assert again.step == 2


def poisoned(run: Trainer, steps: set[int]) -> None:
    """From now on the loss of these steps is no number."""
    plain = run.glp.window_loss

    def window_loss(*given: Any, **options: Any) -> Any:
        found = plain(*given, **options)
        if run.step in steps:
            object.__setattr__(found, "loss", found.loss * math.nan)
        return found

    run.glp.window_loss = window_loss  # type: ignore[method-assign]


def test_a_bad_step_is_skipped_and_counted(tmp_path: Path) -> None:
    heard = Heard()
    run = trainer(tmp_path, watchers=[heard], epochs=2, log_every=1)
    run.resume()
    poisoned(run, {1})
    batches = list(run.train)
    assert run.learn(batches[:2])
    before = weights(run.glp)
    assert not run.learn(batches[2:])
    assert all(torch.equal(value, before[name]) for name, value in weights(run.glp).items())
    assert run.guard.not_finite == 1
    assert run.step == 2
    assert run.learn(batches[:2])


def test_bad_steps_in_a_row_end_the_run_and_the_good_checkpoint_stays(tmp_path: Path) -> None:
    run = trainer(tmp_path, epochs=9, save_every=1, most_bad=3, keep_last=2)
    poisoned(run, {4, 5, 6})
    with pytest.raises(TrainingDiverged, match="3 bad steps in a row"):
        run.run()
    assert [each.step for each in committed(tmp_path)] == [5, 6]  # what four good steps learnt, behind two bad ones
    again, kept, fifth = trainer(tmp_path, epochs=9), weights(run.glp), trainer(tmp_path, epochs=9)
    assert again.resume()
    assert again.guard.row == 2
    assert all(torch.equal(value, kept[name]) for name, value in weights(again.glp).items())
    (tmp_path / "step_00000006" / MARKER).unlink()
    assert fifth.resume()
    assert all(value.isfinite().all() and torch.equal(value, kept[name]) for name, value in weights(fifth.glp).items())


def test_a_bad_last_step_leaves_a_checkpoint_and_a_better_validation_of_a_bad_step_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([0.9, 0.5, 0.8])
    monkeypatch.setattr("training.loop.validate", lambda *_: type("Found", (), {"mean": next(told), "figures": lambda self: {}})())
    run = trainer(tmp_path, epochs=9, steps=3, held=Data(1), validate_every=1, keep_last=1, log_every=100)
    poisoned(run, {1, 2})
    run.run()
    assert [(each.step, each.validation) for each in committed(tmp_path)] == [(2, 0.5), (3, 0.8)]
    assert run.restore_best() == 2
    again = trainer(tmp_path, epochs=9, steps=3)
    assert again.run() == "steps"
    assert again.train.seen == []  # type: ignore[attr-defined]


def test_an_early_stop_at_a_step_that_is_saved_writes_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, written = iter([0.5, 0.6, 0.7]), list[int]()
    monkeypatch.setattr("training.loop.validate", lambda *_: type("Found", (), {"mean": next(told), "figures": lambda self: {}})())
    run = trainer(tmp_path, epochs=9, held=Data(1), validate_every=1, save_every=1, patience=2, log_every=100)
    monkeypatch.setattr(run.snapshots, "save", lambda step, *_: written.append(step))
    assert run.run() == "stopped early"
    assert written == [1, 2, 3]


def test_steps_without_a_sample_in_a_row_end_the_run(tmp_path: Path) -> None:
    run = trainer(tmp_path, epochs=9, most_bad=3)
    for batch in run.train._all:  # type: ignore[attr-defined]
        object.__setattr__(batch.window, "real_B", torch.zeros(1, dtype=torch.bool))
    with pytest.raises(TrainingDiverged, match="3 bad steps in a row, the last with no sample to learn from"):
        run.run()
    assert not run.guard.learnt


def test_more_left_out_samples_than_allowed_end_the_run(tmp_path: Path) -> None:
    for share, ends in ((0.25, False), (0.2, True)):
        heard = Heard()
        run = trainer(tmp_path / str(share), watchers=[heard], epochs=2)
        run.left_out = LeftOut(4, share)
        run.train.skipped["s1"] = "damaged"  # type: ignore[index]
        with pytest.raises(OverBudget, match=r"1 of 4 samples .* a share of 0\.2 \(data\.max_skipped\), s1 among them: damaged") if ends else nullcontext():
            run.run()
        assert "samples left out 1" in heard.lines[0]


def test_blanks_and_chunks_that_are_not_there_are_of_no_use(tmp_path: Path) -> None:
    run = trainer(tmp_path, windows=1)

    def counted(real: list[bool], first: bool = False) -> tuple[float, float]:
        run.meter.useful = run.meter.done = 0.0
        held = replace(window(0, batch=len(real)), real_B=torch.tensor(real), first_B=torch.full((len(real),), first))
        run._gradients([Batch(held, None, ("a",) * len(real))])
        return run.meter.useful, run.meter.done

    (full, done), (less, same) = counted([True] * 4), counted([True, False, False, False])
    assert (full, less, same) == (done, full / 4, done)
    assert counted([False] * 4)[0] == 0
    useful, _ = counted([True] * 4, first=True)  # of 4, those whose second chunk would lie above the schedule lack it
    assert 0 < useful < full


def test_training_stops_when_validation_gets_no_better_and_the_best_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([1.0, 0.5, 0.6, 0.7, 0.8])
    monkeypatch.setattr("training.loop.validate", lambda *_: type("Found", (), {"mean": next(told), "figures": lambda self: {}})())
    run = trainer(tmp_path, epochs=9, held=Data(1), validate_every=1, save_every=1, patience=2, keep_last=1, log_every=100)
    assert run.run() == "stopped early"
    assert run.step == 4
    assert [(each.step, each.validation) for each in committed(tmp_path)] == [(2, 0.5), (4, 0.7)]
    last = weights(run.glp)
    assert run.restore_best() == 2
    assert any(not torch.equal(value, last[name]) for name, value in weights(run.glp).items())


def test_accumulated_micro_batches_are_one_batch(tmp_path: Path) -> None:
    """Each micro-batch weighs as many latent frames as it has: a window of one chunk counts half of one of two."""
    glp, phase, chosen = model(), PHASES["decoder"], settings()
    batches = [Data(3)._all[n] for n in range(3)]
    object.__setattr__(batches[1].window, "first_B", torch.ones(1, dtype=torch.bool))
    found = [errors(glp, phase, batch, seeded(0, "noise", 0, n), chosen.loss) for n, batch in enumerate(batches)]
    frames = [int(sums.weight) for _, sums, _ in found]
    assert frames[0] == 4
    every = torch.stack([total for total, _, _ in found]).sum() / sum(frames)
    wanted = torch.autograd.grad(every, [p for p in glp.parameters() if p.requires_grad])
    run = trainer(tmp_path, windows=3, clip=1e9)
    run.steps = 1
    run.learn(batches)
    got = [p.grad for p in run.glp.parameters() if p.requires_grad]
    for mine, other in zip(got, wanted, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


def test_checkpointing_of_activations_changes_nothing(tmp_path: Path) -> None:
    from training.parallel import ParallelSettings, World, spread

    plain, lean = model("joint"), model("joint")
    names = [name for name, _ in lean.named_parameters()]
    spread(lean, ParallelSettings(), World())
    assert [name for name, _ in lean.named_parameters()] == names
    batch = Data(1, joint=True)._all[0]
    for glp in (plain, lean):
        total, _, _ = errors(glp.train(), PHASES["joint"], batch, seeded(0), settings().loss)
        total.backward()
    for (name, one), (_, other) in zip(plain.named_parameters(), lean.named_parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        assert one.grad is None or torch.equal(one.grad, other.grad), name


def test_noise_is_a_function_of_what_it_is_seeded_with() -> None:
    one, other = window(0), window(1)
    assert not torch.equal(one.latents_BCFHW, other.latents_BCFHW)
    assert torch.equal(torch.rand(3, generator=seeded(0, "noise", 5, 1)), torch.rand(3, generator=seeded(0, "noise", 5, 1)))
    assert not torch.equal(torch.rand(3, generator=seeded(0, "noise", 5, 1)), torch.rand(3, generator=seeded(0, "noise", 5, 2)))


def test_an_early_stop_stays_one_when_the_run_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([1.0, 1.1, 1.2])
    monkeypatch.setattr("training.loop.validate", lambda *_: type("Found", (), {"mean": next(told), "figures": lambda self: {}})())
    options: dict[str, Any] = {"epochs": 9, "validate_every": 1, "save_every": 100, "patience": 2, "log_every": 100}
    assert trainer(tmp_path, held=Data(1), **options).run() == "stopped early"
    again = trainer(tmp_path, held=Data(1), **options)
    assert again.run() == "stopped early"
    assert again.step == 3


def test_a_checkpoint_bears_the_validation_of_its_own_weights_alone_and_a_better_one_is_saved_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([1.0, 0.5, 0.7])
    monkeypatch.setattr("training.loop.validate", lambda *_: type("Found", (), {"mean": next(told), "figures": lambda self: {}})())
    trainer(tmp_path, epochs=5, steps=9, held=Data(1), validate_every=3, save_every=4, keep_last=9, log_every=100).run()
    assert [(each.step, each.validation) for each in committed(tmp_path)] == [(3, 1.0), (4, None), (6, 0.5), (8, None), (9, 0.7)]


def test_a_step_of_samples_that_all_failed_their_check_changes_nothing_and_the_run_goes_on(tmp_path: Path) -> None:
    heard, run = Heard(), trainer(tmp_path, epochs=2)
    run._watchers = [heard]
    batches = [Data(2)._all[n] for n in range(2)]
    for batch in batches:
        object.__setattr__(batch.window, "real_B", torch.zeros(1, dtype=torch.bool))
    run.steps, before = 4, weights(run.glp)
    assert run.learn(batches) is False
    assert (run.step, run.guard.skipped) == (1, 0)
    assert all(torch.equal(value, before[name]) for name, value in weights(run.glp).items())
    run.train.skipped["s0"] = "damaged"  # type: ignore[index]
    run._since = 0.0
    run._log(0)
    assert "samples left out 1" in heard.lines[0]


def test_a_resumed_run_plans_whole_epochs_whatever_the_rest_of_this_one_is(tmp_path: Path) -> None:
    """Four windows in two steps an epoch; where the rest of the epoch takes more steps than its share, as with a bucket more, later epochs do not."""
    run = trainer(tmp_path, epochs=3, data=Data(4))
    run.step, run.train.position = 1, 1  # type: ignore[misc]
    assert (len(run.train), run.train.epoch_steps) == (3, 4)
    assert run._planned() == 1 + 2 + 2 * 2


@pytest.mark.parametrize("clip", [0.05, 1e9])
def test_the_norm_that_reaches_the_optimiser_is_the_clip_where_gradients_are_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: float) -> None:
    run, reached = trainer(tmp_path, clip=clip), list[float]()
    run.steps, plain = 1, run.optimiser.step

    def step() -> None:
        reached.append(float(total_norm(gradients(run.optimiser))))
        plain()

    monkeypatch.setattr(run.optimiser, "step", step)
    assert run.learn(Data(2)._all)
    assert run.norm > 0.1  # as measured and told, before the clip
    assert reached == [pytest.approx(min(clip, run.norm), rel=1e-5)]  # and smaller ones are left as they are


def test_a_validation_that_is_no_number_is_never_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, losses, best in (("some", [math.nan, 0.5, math.nan, 0.7], 2), ("none", [math.nan] * 4, None)):
        told = iter(losses)
        monkeypatch.setattr("training.loop.validate", lambda *_, told=told: type("Found", (), {"mean": next(told), "figures": lambda self: {}})())
        run = trainer(tmp_path / folder, epochs=9, steps=4, held=Data(1), validate_every=1, save_every=1, keep_last=1, log_every=100)
        run.run()
        last = weights(run.glp)
        assert run.restore_best() == best
        assert all(torch.equal(value, last[name]) for name, value in weights(run.glp).items()) == (best is None)


def test_the_first_line_after_a_resume_is_of_all_steps_since_the_line_before(tmp_path: Path) -> None:
    """Saved at step 3, between the lines of steps 2 and 4: the checkpoint tells what step 3 found."""
    whole, single, resumed = Heard(), Heard(), Heard()
    options: dict[str, Any] = {"epochs": 2, "windows": 1, "save_every": 3, "keep_last": 9}
    trainer(tmp_path / "run", watchers=[whole], log_every=2, **options).run()
    trainer(tmp_path / "single", watchers=[single], log_every=1, **options).run()
    for later in committed(tmp_path / "run")[1:]:
        (later.path / MARKER).unlink()  # as if it had been killed before step 6
    trainer(tmp_path / "run", watchers=[resumed], log_every=2, **options).run()
    third, fourth = single.of("loss")[2:4]
    assert [step for step, _ in resumed.figures] == [4, 6, 8]
    assert whole.of("loss")[1] == pytest.approx((third + fourth) / 2)
    assert abs(third - fourth) > 1e-4
    assert [timeless(entry) for entry in resumed.figures] == [timeless(entry) for entry in whole.figures[1:]]
