"""Loop: a phase of training, step after step, on one rank of any number: learns, validates, saves, and goes on from where a run was stopped."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from training.every_rank import every_rank
from training.left_out import LeftOut
from training.loop_settings import Settings
from training.meter import Meter, line
from training.model.glp import GLP
from training.model.plain import must
from training.optim import Average, Guard, OverBudget, adamw, gradients, rate, scale_, set_rate, tensors, total_norm
from training.parallel import World
from training.phases import Phase
from training.resuming import check
from training.seen import Seen
from training.snapshots import Snapshots
from training.step import Batch, Data, Sums, errors, seeded
from training.trackers import Watcher
from training.validation import Stopping, validate

Ending = Literal["epochs", "steps", "stopped early"]


class Trainer:
    """One rank's run of a phase.

    Args:
        glp: prepared for the phase, spread over the mesh, on its device.
        train, held: the samples to learn from, and those to validate on (None: no validation).
        folder: of the run's checkpoints, which every rank can reach.
        watchers: told on the first rank alone.
        films: makes and shows a film of the model as it is; called on all ranks.
        report: told the figures too, on all ranks at the same steps.
        left_out: counts the samples that failed their check, and ends a run of too many.
    """

    def __init__(
        self,
        glp: GLP,
        phase: Phase,
        train: Data,
        folder: Path,
        settings: Settings,
        *,
        held: Data | None = None,
        mesh: World | None = None,
        watchers: Sequence[Watcher] = (),
        films: Callable[[int], None] | None = None,
        report: Callable[[dict[str, float]], None] | None = None,
        device: str = "cpu",
        left_out: LeftOut | None = None,
    ) -> None:
        self.glp, self.phase, self.train, self.held, self.settings, self.device = glp, phase, train, held, settings, device
        self.mesh, self._watchers, self._films, self._report = mesh or World(), watchers, films, report
        loop = settings.loop
        must(held is not None or not loop.patience, "loop.patience without held-out windows to validate on; curate with pack.val_share above 0, or set it to 0")
        must(phase.objective == "flow" or self.mesh.sequence is None, f"phase {phase.name!r} has no window to share; set parallel.sequence to 1")
        self.accumulate = max(1, round(loop.windows / (loop.batch * self.mesh.data_ranks)))
        self.optimiser = adamw(self._learning(), settings.optim)
        self.average = Average(self._learning(), settings.optim.ema) if settings.optim.ema else None
        self.guard, self.stopping = Guard(settings.optim), Stopping(loop.patience)
        self.snapshots = Snapshots(folder, keep_last=loop.keep_last, group=self.mesh.files)
        self.step, self.steps, self.validation, self._since = 0, 0, float("nan"), 0.0
        self.lr = self.norm = 0.0
        self.seen = Seen(folder.parent / "samples", self.mesh) if loop.samples else None
        self._held_start = held.state_dict() if held is not None else None
        self.left_out = LeftOut() if left_out is None else left_out
        self._found: Sums | None = None
        self._validated_at: int | None = None
        self._saved_at: int | None = None
        self.meter = self._meter()
        glp.train()

    def run(self) -> Ending:
        """Trains to the end, from the newest checkpoint if there is one, and saves; returns why it ended.

        Raises:
            OverBudget: too many bad steps in a row, or too many samples left out; the checkpoint that is being written is finished first.
        """
        self.resume()
        if self.seen is not None:
            self.seen.begin(self.snapshots.agreed(time.time_ns()))
        self._since, begun = time.monotonic(), self.step
        try:
            ending = self._trained(begun)
        except OverBudget:
            self.snapshots.settle()
            raise
        if self.step > begun and self._saved_at != self.step:
            self.save()
        self.snapshots.settle()
        return ending

    def _trained(self, begun: int) -> Ending:
        """Step after step, until there is a reason to end."""
        ending: Ending | None = self._over()
        while ending is None:
            for batches in self._taken(begun):
                if self.seen is not None:
                    self.seen.told(self.step + 1, batches)
                self.learn(batches)
                ending = self._after_step(begun) or self._over()
                if ending is not None:
                    break
        skipped = self.train.skipped
        self.left_out.add(skipped, every_rank([self.left_out.untold(skipped)], self.mesh.data, self.device), self.mesh.data)
        self.left_out.check()
        return ending

    def learn(self, batches: Sequence[Batch]) -> bool:
        """One optimiser step on some micro-batches; whether it was a good one and changed the weights."""
        torch.manual_seed(seeded(self.settings.loop.seed, "process", self.step, self.mesh.data_rank).initial_seed())
        self.optimiser.zero_grad(set_to_none=True)
        sums = self._gradients(batches).reduced(self.mesh.data)
        if float(sums.weight) == 0:  # nothing but samples that failed their check, on all ranks
            self.guard.empty()
            self.step += 1
            return False
        with self.meter.timed("optimiser"):
            good = self._changed(sums)
        self.step += 1
        self.meter.steps += 1
        return good

    def _changed(self, sums: Sums) -> bool:
        """Changes the weights by the gradients of the errors' sum, unless they are bad ones; whether it did."""
        scale_(list(gradients(self.optimiser)), 1 / float(sums.weight))
        norm = float(total_norm(gradients(self.optimiser)))
        good = self.guard.good(sums.mean, norm)
        share = rate(self.step, self.steps, self.settings.optim) if self.steps else 1.0
        self.lr, self.norm = set_rate(self.optimiser, share, self.settings.optim), norm
        if good:
            scale_(list(gradients(self.optimiser)), min(1.0, self.settings.optim.clip / (norm + 1e-12)))
            self.optimiser.step()
            if self.average is not None:
                self.average.update(self._learning())
            self._found = sums if self._found is None else self._found + sums
        return good

    def save(self) -> None:
        """Writes a checkpoint in the background; behind a bad step too, which leaves the weights as they were and is counted in the guard's state."""
        settings, self._saved_at = self.settings, self.step
        state = {
            "phase": self.phase.name,
            "seed": settings.loop.seed,
            "step": self.step,
            "steps": self.steps,
            "windows": self.accumulate * settings.loop.batch * self.mesh.data_ranks,
            "data": self.train.state_dict(),
            "guard": self.guard.state_dict(),
            "stopping": self.stopping.state_dict(),
            "found": None if self._found is None else self._found.state_dict(),  # of the steps since the last line; summed over the ranks
        }
        validation = self.validation if self._validated_at == self.step else None  # of these very weights, or of none
        self.snapshots.save(self.step, tensors(self.optimiser, self._learning(), self.average), state, validation)

    def resume(self) -> bool:
        """Takes up the newest whole checkpoint: weights, optimiser, schedule, data cursor, guard; noise is a function of seed and step.

        Raises:
            ValueError: the checkpoint is of another phase, seed or corpus, of other parameters, or has no moving average to go on with.
        """
        snapshot = self.snapshots.newest()
        self.snapshots.sweep()
        if snapshot is None:
            self.steps = self._planned()
            return False
        state = snapshot.state
        check(snapshot, state, self.phase.name, self.settings, aloud=self.mesh.rank == 0)
        self.snapshots.load(snapshot, tensors(self.optimiser, self._learning(), self.average))
        self.train.load_state_dict(state["data"])
        self.guard.load_state_dict(state["guard"])
        self.stopping.load_state_dict(state["stopping"])
        self._found = None if state.get("found") is None else Sums.of(state["found"], self.device)  # a checkpoint of before has none
        self.step, self.validation = state["step"], float("nan") if snapshot.validation is None else snapshot.validation
        self.steps = self._planned()
        return True

    def restore_best(self) -> int | None:
        """Fills the weights with those of the best validated checkpoint; its step. None, and nothing is changed, where none was validated."""
        found = self.snapshots.best()
        if found is not None:
            self.snapshots.load(found, tensors(None, self._learning(), self.average))
        return None if found is None else found.step

    def _taken(self, begun: int) -> Iterator[list[Batch]]:
        """What remains of the epoch, a step's micro-batches at a time; the wait for them is measured."""
        source = iter(self.train)
        while True:
            began = time.perf_counter()
            batches = list(islice(source, self.accumulate))
            self.meter.spent("data", (time.perf_counter() - began) * (self.step > begun))  # the first wait is the start of the reading processes
            if not batches:
                return
            yield batches

    def _gradients(self, batches: Sequence[Batch]) -> Sums:
        """The gradients of the sum of all errors; what was found, of this rank alone."""
        loop, mesh, found = self.settings.loop, self.mesh, None
        for micro, batch in enumerate(batches):
            generator = seeded(loop.seed, "noise", self.step, micro * mesh.data_ranks + mesh.data_rank)
            with self.meter.timed("forward"):
                total, sums, layout = errors(self.glp, self.phase, batch.to(self.device), generator, self.settings.loss)
            with self.meter.timed("backward"):
                total.backward()
            found = sums if found is None else found + sums
            if layout is not None:
                latents = batch.window.latents_BCFHW
                patch = self.glp.spec.decoder.patch
                real = None if batch.window.real_B is None else int(batch.window.real_B.sum())
                frames_G = sums.chunk.count.tolist()[: len(layout.chunks)]
                self.meter.windows(len(latents), layout, latents.shape[3] // patch[1] * (latents.shape[4] // patch[2]), real, frames_G)
        assert found is not None
        return found

    def _after_step(self, begun: int) -> Ending | None:
        """Shows, validates, saves, where it is due; a reason to end, if there is one."""
        loop, ending, last = self.settings.loop, None, self.step == self.steps
        if self.step % loop.log_every == 0 or last:
            self._log(begun)
        better = False
        if self.held is not None and loop.validate_every and (self.step % loop.validate_every == 0 or last):
            ending = "stopped early" if self._validated() else None
            better = self.stopping.waited == 0
        if loop.films_every and self._films is not None and (self.step % loop.films_every == 0 or last):
            with self._averaged():
                self._films(self.step)
        if (self.step % loop.save_every == 0 or better) and not last:
            self.save()
        return ending  # type: ignore[return-value]

    def _validated(self) -> bool:
        """Measures the loss on the held-out windows; whether to stop for it."""
        assert self.held is not None and self._held_start is not None  # noqa: PT018 - one is there with the other
        loop = self.settings.loop
        self.held.load_state_dict(self._held_start)
        with self._averaged():
            found = validate(self.glp, self.phase, self.held, self.settings.loss, loop.seed, self.mesh, self.device)
        self.validation, self._validated_at = found.mean, self.step
        self._tell({"validation_loss": self.validation} | {f"validation_{name}": value for name, value in found.figures().items()}, "")
        return self.stopping.told(self.validation)

    def _log(self, begun: int) -> None:
        """Figures of all ranks, and a line with the time left.

        Raises:
            OverBudget: too many samples were left out.
        """
        skipped = self.train.skipped
        ranks = every_rank([self.left_out.untold(skipped), *self.meter.numbers()], self.mesh.data, self.device)
        self.left_out.add(skipped, ranks, self.mesh.data)
        loss: dict[str, float] = {} if self._found is None else {"loss": self._found.mean} | self._found.figures()  # none: nothing but bad steps
        figures = loss | {"lr": self.lr, "gradient_norm": self.norm, "skipped_steps": float(self.guard.skipped), "epoch": float(self.train.epoch)}
        figures |= {"left_out_samples": float(len(self.left_out))} | self.meter.read([row[1:] for row in ranks])
        rest = (time.monotonic() - self._since) / (self.step - begun) * (self.steps - self.step)
        self._tell(figures, line(self.step, self.steps, self.settings.loop.epochs, figures, self.validation, rest))
        self._found = None
        self.left_out.check()

    def _tell(self, figures: dict[str, float], line: str) -> None:
        if self.mesh.rank == 0:
            for watcher in self._watchers:
                watcher.told(self.step, figures, line)
        if self._report is not None:
            self._report({"step": float(self.step), **figures})

    def _over(self) -> Ending | None:
        if self.stopping.over:
            return "stopped early"
        if self.step >= self.steps:
            return "steps" if self.steps == self.settings.loop.steps else "epochs"
        return None

    def _planned(self) -> int:
        """All steps of the run, done ones too; a change of the number of workers changes only those that are left."""
        loop, each = self.settings.loop, self.accumulate
        left_now, whole = -(-len(self.train) // each), -(-self.train.epoch_steps // each)
        planned = self.step + (left_now + whole * (loop.epochs - self.train.epoch - 1) if self.train.epoch < loop.epochs else 0)
        return min(planned, loop.steps) if loop.steps is not None else planned

    def _averaged(self) -> AbstractContextManager[None]:
        """The weights as they would be exported, while the block runs: their moving average, if one is kept."""
        return nullcontext() if self.average is None else self.average.in_place(self._learning())

    def _learning(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, parameter) for name, parameter in self.glp.named_parameters() if parameter.requires_grad]

    def _meter(self) -> Meter:
        settings, joint = self.settings, self.phase.data == "joint"
        recomputed = 1.0 if settings.parallel.checkpoint else 0.0
        kind = getattr(torch, settings.loss.compute)
        return Meter(self.glp.spec.decoder, self.device, kind, joint and self.glp.connector is None, recomputed, settings.parallel.sequence)
