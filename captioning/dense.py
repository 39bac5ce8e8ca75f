"""Dense: one question a clip to a vision-language model, whose answer tells of all its chunks; bound to its pictures and checked before it is believed."""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from captioning import structure
from captioning.checks import REASONS, Check, Evidence
from captioning.events import check
from captioning.prompts import DENSE_VERSION, dense, dense_sha256
from curation.clips import ClipError
from curation.frames import Frames
from curation.vlm import Answer, Question, Vlm, VlmConfig, frames_sha256, open_vlm, shown

#: Gives the frames with every region of text blurred beyond reading.
Blur = Callable[[Frames], Frames]


@dataclass(frozen=True)
class Clip:
    """A clip that waits for its caption."""

    clip_id: str
    frames: Frames
    evidence: Evidence


@dataclass
class Told:
    """What became of one clip: its caption's columns, or the fault; and every answer on the way, as records for the row's `answers`."""

    columns: dict[str, Any] = field(default_factory=dict)
    fault: ClipError | None = None
    answers: list[str] = field(default_factory=list)


class Dense:
    """Asks for dense captions, all clips of a call at once.

    A caption that is about lettering which a detector found is asked for once more, about pictures in which that is blurred: what a picture
    says easily drowns what happens in it. One that still is, or that cannot be looked at again, is refused.

    Args:
        config: who answers, and how many pictures are shown.
        blur: what blurs text; None = nothing can.
        vlm: in place of the back end that `config` names.

    Raises:
        ValueError: what the back end needs is missing.
    """

    def __init__(self, config: VlmConfig, blur: Blur | None = None, vlm: Vlm | None = None) -> None:
        self.config, self.blur, self.vlm = config, blur, vlm or open_vlm(config)

    def describe(self, clips: Sequence[Clip]) -> list[Told]:
        """What became of each clip, in order."""
        told = [Told() for _ in clips]
        with ThreadPoolExecutor(1, "pan-evidence") as beside:
            measured = [beside.submit(clip.evidence.measure) for clip in clips]
            again = self._round(clips, told, list(range(len(clips))), [clip.frames for clip in clips], blurred=False)
            for future in measured:
                future.result()
        if again and self.blur is not None:
            self._round(clips, told, again, [self.blur(clips[i].frames) for i in again], blurred=True)
        return told

    def _round(self, clips: Sequence[Clip], told: list[Told], asked: list[int], frames: Sequence[Frames], blurred: bool) -> list[int]:
        """Asks about the clips numbered `asked`, with `frames` for their pictures; returns those that are about text and may be asked again."""
        checks = [Check(clips[i].evidence) for i in asked]
        questions = [self._question(clips[i], shown_frames, rule) for i, shown_frames, rule in zip(asked, frames, checks, strict=True)]
        again = []
        for i, question, rule, answer in zip(asked, questions, checks, self.vlm.answer(questions) if questions else [], strict=True):
            told[i].answers.append(answer.record())
            try:
                self._bound(question, answer)
                found = rule(answer.value)
                if found.about_text and not blurred and self.blur is not None:
                    again.append(i)
                elif found.about_text:
                    raise ClipError("caption_text", "at least half of its texts quote or speak of lettering that was detected")
                flags = [*found.flags, *(["text_blurred"] if blurred else [])]
                told[i].columns = self._columns(clips[i].evidence, found.dense, flags, answer)
            except ClipError as fault:
                told[i].fault = fault
        return again

    def _question(self, clip: Clip, frames: Frames, rule: Check) -> Question:
        chunks = len(clip.evidence.spans)
        tokens = 1024 + 128 * chunks
        return Question(clip.clip_id, frames, dense(clip.evidence.spans), schema=structure.schema(chunks), max_tokens=tokens, check=rule)

    def _bound(self, question: Question, answer: Answer) -> None:
        """Holds the answer to its question, whatever its way there and back was.

        Raises:
            ClipError: "caption_unbound", the reason that a check gave, or the answer's own ("vlm_truncated", ...).
        """
        sent = frames_sha256(*shown(question.frames, self.config.max_pictures))
        if (answer.clip_id, answer.prompt_sha256, answer.frames_sha256) != (question.clip_id, question.prompt.sha256, sent):
            raise ClipError("caption_unbound", f"the answer is about clip {answer.clip_id}, pictures {answer.frames_sha256[:12]}; sent were {sent[:12]}")
        if answer.reason is not None:
            raise ClipError(_reason(answer), answer.detail)

    @staticmethod
    def _columns(evidence: Evidence, found: structure.Dense, flags: Sequence[str], answer: Answer) -> dict[str, Any]:
        events = structure.events(found, evidence.spans)
        check(events, evidence.end_s)
        return {
            "events": [event.as_dict() for event in events],
            "caption": found.caption,
            "caption_backend": answer.model,
            "prompt_version": answer.prompt_version,
            "structure": structure.canonical(found, evidence.spans, flags),
            "frames_sha256": answer.frames_sha256,
        }


def _reason(answer: Answer) -> str:
    """The reason that a check of ours gave, where the last try failed by one; else the answer's own."""
    named = re.search(r"\bcaption_[a-z_]+\b", answer.detail)
    return named[0] if answer.reason == "vlm_invalid" and named and named[0] in REASONS else str(answer.reason)


def settings_of(config: VlmConfig) -> dict[str, Any]:
    """What decides the text of a dense caption."""
    return {"backend": "vlm", "prompt": dense_sha256(), "version": DENSE_VERSION, **config.identity()}
