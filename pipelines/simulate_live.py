"""Simulate live: actions typed one by one, moments kept, left and come back to."""

import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.simulate import Plan, checked_actions, told_length

if TYPE_CHECKING:
    from training.model.glp import GLP
    from training.rollout import Session

#: Moments that stay whole on the device: this one and what `:back` comes to first. One of the 14B model's holds gigabytes: keys, values, Wan's cache.
WHOLE = 3

HELP = """Type what is done; each line becomes the next chunk, which is written at once beside the film: NAME.1.mp4, NAME.2.mp4, ...
Pieces are numbered as they are made: the numbers run on behind :back, :go and :load, so no future's piece takes the place of another's.
Moments further back rest in temporary files, in the folder that TMPDIR names.
Lines that begin with a colon:
  :back          undo the last action
  :fork NAME     keep this moment under a name, and go on
  :go NAME       go to a kept moment; the film goes with it
  :save FILE     write the session to a file; :load FILE takes one up
  :quit          write the film and end"""


@dataclass(eq=False)
class Moment:
    """Where a future stands: a session that is never stepped itself, or the file that it rests in.

    Attributes:
        film: all frames until here, piece by piece; actions: how many were done.
        session: None while it rests; file: where it rests, or has rested before: it is the same still.
    """

    film: tuple[Any, ...]
    actions: int
    session: "Session | None"
    file: Path | None = None


class Moments:
    """Keeps the `WHOLE` moments that were used last on the device and the others in temporary files, and takes them up again to the bit.

    Args:
        model: whose sessions they are.
        told: prints a line.
    """

    def __init__(self, model: "GLP", told: Callable[[str], None]) -> None:
        self._model, self._told = model, told
        self._place = tempfile.TemporaryDirectory(prefix="pan-moments-")
        self._count = 0
        self._whole: list[weakref.ref[Moment]] = []  # a moment that nothing comes back to is forgotten here too

    def new(self, session: "Session", film: tuple[Any, ...]) -> Moment:
        """A moment that can be come back to; one that was not used for long is put into a file for it."""
        moment = Moment(film, len(session.actions), session)
        self._used(moment)
        return moment

    def session(self, moment: Moment) -> "Session":
        """The session of `moment`, on the device.

        Raises:
            ValueError: its file was lost.
        """
        from training.rollout import Session

        if moment.session is None:
            assert moment.file is not None
            moment.session = Session.load(moment.file, self._model)
        self._used(moment)
        return moment.session

    def close(self) -> None:
        """Removes the files: no moment that rests can be taken up any more."""
        self._place.cleanup()

    def _used(self, moment: Moment) -> None:
        """`moment` was used last; those that were not for longest go to rest, or stay whole where there is no room for their file."""
        others = [ref for ref in self._whole if ref() not in (None, moment)]
        self._whole = [*others, weakref.ref(moment)]
        try:
            while len(self._whole) > WHOLE:
                if (oldest := self._whole[0]()) is not None:
                    self._rest(oldest)
                self._whole.pop(0)
        except (ValueError, OSError) as error:
            self._told(f"  an older moment stays on the device: {error}")

    def _rest(self, moment: Moment) -> None:
        assert moment.session is not None
        if moment.file is None:
            self._count += 1
            file = Path(self._place.name) / f"{self._count}.safetensors"
            moment.session.save(file)
            moment.file = file
            weakref.finalize(moment, file.unlink, missing_ok=True)
        moment.session = None


class Terminal:
    """Actions typed one by one: every step's frames are written as soon as they are there, and moments can be kept, left and come back to.

    Args:
        plan: with its first actions, if any.
        model: the model.
        told: prints a line.
    """

    def __init__(self, plan: Plan, model: "GLP", told: Callable[[str], None] = print) -> None:
        from training.rollout import Session

        self._plan, self._model, self._told = plan, model, told
        self._store, self._pieces = Moments(model, told), 0
        session = Session(model, plan.sampling)
        frames = session.start(plan.image_HWC)
        self._moments = [self._store.new(session, (frames,))]
        self._kept: dict[str, list[Moment]] = {}

    def run(self, lines: Iterable[str]) -> int:
        """Takes lines until they end or `:quit`, then writes the film; returns its frames."""
        try:
            self._told(HELP)
            for action in self._plan.actions:
                self._act(action)
            self._taken(lines)
            return self._write(self._plan.out)
        finally:
            self._store.close()

    def _taken(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line.strip() == ":quit":
                break
            try:
                self._take(line.strip())
            except (ValueError, OSError) as error:  # a full disk ends no session either
                self._told(f"  {error}")

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        name = rest.strip()
        if not word.startswith(":"):
            if line:
                (action,) = checked_actions([line])
                told_length(self._plan.spec, self._model.text.tokenizer, [("this action", action)])
                self._act(action)
        elif word == ":back" and len(self._moments) > 1:
            self._moments.pop()
            self._told(f"  back behind action {self._moments[-1].actions}")
        elif word == ":fork" and name:
            self._kept[name] = list(self._moments)
            self._told(f"  kept as {name}")
        elif word == ":go" and name in self._kept:
            self._moments = list(self._kept[name])
            self._told(f"  at {name}, behind action {self._moments[-1].actions}")
        elif word == ":save" and name:
            self._store.session(self._moments[-1]).save(Path(name))
            self._told(f"  saved: {name}")
        elif word == ":load" and name:
            self._load(Path(name))
        else:
            known = f"; kept are {', '.join(self._kept) or 'none'}" if word == ":go" else ""
            self._told(f"  {line!r} cannot be done here{known}\n{HELP}")

    def _act(self, action: str) -> None:
        """One step from a fork of this moment, which stays as it was, so that one can come back."""
        now = self._moments[-1]
        after = self._store.session(now).fork()
        frames = after.step(action)
        self._moments.append(self._store.new(after, (*now.film, frames)))
        self._pieces += 1
        piece = self._plan.out.with_name(f"{self._plan.out.stem}.{self._pieces}.mp4")
        self._written(piece, (frames,))
        self._told(f"  {len(after.actions)}  {action}  ({len(frames)} frames: {piece})")

    def _load(self, path: Path) -> None:
        from training.rollout import Session

        session = Session.load(path, self._model)
        self._moments = [self._store.new(session, (session.frames,))]
        self._told(f"  taken up behind action {len(session.actions)}; the film begins with its last frames")

    def _write(self, path: Path) -> int:
        return self._written(path, self._moments[-1].film)

    def _written(self, path: Path, pieces: Sequence[Any]) -> int:
        from curation.film import Film

        with Film(path, self._plan.spec.chunks.fps) as film:
            for piece in pieces:
                film.add(piece)
        return film.frames
