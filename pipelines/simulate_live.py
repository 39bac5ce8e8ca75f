"""Simulate live: actions typed one by one, moments kept, left and come back to."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.simulate import Plan, checked_actions

if TYPE_CHECKING:
    from training.model.glp import GLP

HELP = """Type what is done; each line becomes the next chunk, which is written at once beside the film: NAME.1.mp4, NAME.2.mp4, ...
Lines that begin with a colon:
  :back          undo the last action
  :fork NAME     keep this moment under a name, and go on
  :go NAME       go to a kept moment; the film goes with it
  :save FILE     write the session to a file; :load FILE takes one up
  :quit          write the film and end"""


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
        session = Session(model, plan.sampling)
        frames = session.start(plan.image_HWC)
        self._moments: list[tuple[Session, tuple[Any, ...]]] = [(session, (frames,))]
        self._kept: dict[str, list[tuple[Session, tuple[Any, ...]]]] = {}

    def run(self, lines: Iterable[str]) -> int:
        """Takes lines until they end or `:quit`, then writes the film; returns its frames."""
        self._told(HELP)
        for action in self._plan.actions:
            self._act(action)
        for line in lines:
            if line.strip() == ":quit":
                break
            try:
                self._take(line.strip())
            except (ValueError, OSError) as error:  # a full disk ends no session either
                self._told(f"  {error}")
        return self._write(self._plan.out)

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        name = rest.strip()
        if not word.startswith(":"):
            if line:
                self._act(checked_actions([line])[0])
        elif word == ":back" and len(self._moments) > 1:
            self._moments.pop()
            self._told(f"  back behind action {len(self._moments[-1][0].actions)}")
        elif word == ":fork" and name:
            self._kept[name] = list(self._moments)
            self._told(f"  kept as {name}")
        elif word == ":go" and name in self._kept:
            self._moments = list(self._kept[name])
            self._told(f"  at {name}, behind action {len(self._moments[-1][0].actions)}")
        elif word == ":save" and name:
            self._moments[-1][0].save(Path(name))
            self._told(f"  saved: {name}")
        elif word == ":load" and name:
            self._load(Path(name))
        else:
            known = f"; kept are {', '.join(self._kept) or 'none'}" if word == ":go" else ""
            self._told(f"  {line!r} cannot be done here{known}\n{HELP}")

    def _act(self, action: str) -> None:
        """One step from a fork of this moment, which stays as it was, so that one can come back."""
        session, film = self._moments[-1]
        after = session.fork()
        frames = after.step(action)
        self._moments.append((after, (*film, frames)))
        number = len(after.actions)
        piece = self._plan.out.with_name(f"{self._plan.out.stem}.{number}.mp4")
        self._written(piece, (frames,))
        self._told(f"  {number}  {action}  ({len(frames)} frames: {piece})")

    def _load(self, path: Path) -> None:
        from training.rollout import Session

        session = Session.load(path, self._model)
        self._moments = [(session, (session.frames,))]
        self._told(f"  taken up behind action {len(session.actions)}; the film begins with its last frames")

    def _write(self, path: Path) -> int:
        return self._written(path, self._moments[-1][1])

    def _written(self, path: Path, pieces: Sequence[Any]) -> int:
        from curation.film import Film

        with Film(path, self._plan.spec.chunks.fps) as film:
            for piece in pieces:
                film.add(piece)
        return film.frames
