"""Rollout: a world that goes on action by action: start from an image, step, fork for other futures, save and take up again."""

# Shape suffixes: B batch (1), C channels, F latent frames, H W pixels or latent rows and columns, T pixel frames, N text tokens, D text width, Q queries,
# S state width.

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.diffusion.chunks import ChunkSampler, Context, Past
from training.diffusion.sampler import Solver
from training.diffusion.schedule import NoiseSchedule, agree
from training.diffusion.swin import Levels
from training.model.decoder import Outputs
from training.model.glp import GLP
from training.model.plain import built, must
from training.sampling import Sampling
from training.session_file import chunk_of, identity, opened, tensors_of, within

Frames_THWC = npt.NDArray[np.uint8]


class Session:
    """One future of a world, closed loop: what the model generates is what it sees next.

    Each step, the backbone sees the frames of the step before and hears the action, the decoder denoises the latents of the next chunk, and the autoencoder's
    causal stream turns them into frames. Nothing that was is ever written to, so a fork costs no copy.

    Args:
        model: the world model; any device and precision.
        sampling: how it is sampled.

    Raises:
        ValueError: the plan's places do not divide the steps, or the plan is one that only trains.

    Source: PAN (arXiv 2511.09057v3), sections 3.3.4 and 5.
    """

    def __init__(self, model: GLP, sampling: Sampling | None = None) -> None:
        self.model, self.sampling = model, sampling or Sampling()
        self.actions: tuple[str, ...] = ()
        self._sampler = _sampler(model, self.sampling)
        self._past: Past = ()
        self._seen: Frames_THWC | None = None
        self._null_ND: Tensor | None = None
        self._stream = model.vae.stream_decode()
        self._dialogue = model.backbone.session() if model.backbone is not None else None

    @property
    def frames(self) -> Frames_THWC:
        """The frames of the last step, or the image; uint8 [T, H, W, 3].

        Raises:
            ValueError: the session has not begun.
        """
        must(self._seen is not None, "this session has not begun: call start(image) first")
        assert self._seen is not None
        return self._seen.copy()  # what the caller does with them changes nothing here

    def start(self, image_HWC: npt.NDArray[np.uint8]) -> Frames_THWC:
        """Begins with an image, uint8 RGB [H, W, 3]; returns the film's first frame [1, H, W, 3]: the image as it is.

        Raises:
            ValueError: no such image, sides that a token's pixels do not divide, or the session has begun.
        """
        must(self._seen is None, "this session has begun: make a new one for another image, or fork() for another future")
        check_image(self.model, image_HWC)
        spec = self.model.spec.chunks
        still_THWC = np.repeat(image_HWC[None], 1 + (spec.cond_latents - 1) * spec.temporal, 0)  # one frame, unless the condition is longer
        latents = self.model.encode(self._video(still_THWC))
        self._past = self._sampler.begin(latents.to(self._kind))
        self._decoded(latents[:, :, :1])  # the image's own frame: the stream's cache must have seen it
        self._null_ND = self.model.encode_text([self.sampling.negative])[0]
        self._seen = np.array(image_HWC)[None]
        return self.frames

    def step(self, action: str) -> Frames_THWC:
        """What comes of `action`: the next chunk's frames, uint8 [40, H, W, 3] in PAN, as soon as they are there.

        A step is done whole or not at all: an error, or a key that interrupts it, leaves the session where it was.

        Raises:
            ValueError: the session has not begun.
        """
        shape, after = self.frames.shape, self.fork()
        after._past = self._sampler.following(self._past, after._context(action))
        frames = after._shown(action, shape)
        self.__dict__.update(after.__dict__)
        return frames

    def scripted(self, actions: Sequence[str]) -> Iterator[Frames_THWC]:
        """As `step` for one action after the other, but neighbouring chunks share windows, which spares a quarter of the work.

        The computation is the same number for number, and the frames are but for the matrix library's rounding: it may add up a row otherwise when more rows
        share a product. An action is encoded when its chunk's turn comes.

        Raises:
            ValueError: the model predicts states: an action's state depends on the frames before it, which a script does not have.
        """
        must(self._dialogue is None, f"model {self.model.spec.name} predicts states from the frames before, so a script cannot be run ahead: step() instead")
        shape, contexts = self.frames.shape, map(self._context, actions)  # not all at once: a text of umT5's is 4 MB
        for action, past in zip(actions, self._sampler.scripted(self._past, contexts), strict=True):
            self._past = past
            yield self._shown(action, shape)

    def fork(self, seed: int | None = None) -> "Session":
        """Another future from here; neither touches the other.

        Args:
            seed: of the noise from here on; the same by default, so that futures differ by their actions alone.
        """
        twin = Session.__new__(Session)
        twin.__dict__.update(self.__dict__)
        twin._stream = self._stream.fork()
        twin._dialogue = None if self._dialogue is None else self._dialogue.fork()
        if seed is not None:
            twin.sampling = replace(self.sampling, seed=seed)
            twin._sampler = replace(self._sampler, seed=seed)
        return twin

    def save(self, path: Path) -> None:
        """Writes the session to one safetensors file, whole or not at all; `load` goes on from it to the bit.

        Raises:
            ValueError: the session has not begun, or nothing can be written there.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        must(path.parent.is_dir(), f"{path}: there is no folder {path.parent}; make it, or choose another name")
        must(not path.is_dir(), f"{path}: a folder is there; choose another name")
        held: dict[str, Tensor] = {"seen": torch.from_numpy(np.ascontiguousarray(self.frames))} | tensors_of(self._past)
        held |= {f"stream.{name}": tensor for name, tensor in self._stream.state().items()}
        if self._dialogue is not None:
            held |= {f"dialogue.{name}": tensor for name, tensor in self._dialogue.state_dict().items()}
        numbers = [chunk.number for chunk in self._past]
        told = {"model": identity(self.model), "sampling": self.sampling.to_dict(), "actions": self.actions, "chunks": numbers}
        part = path.with_name(path.name + ".part")
        # a tensor of its own each: a file knows no sharing
        ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in held.items()}
        try:
            save_file(ready, part, {"pan": json.dumps(told)})
            part.replace(path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise ValueError(f"{path}: the session cannot be written there ({error}); choose another place") from error

    @classmethod
    def load(cls, path: Path, model: GLP) -> "Session":
        """Takes up a session that `save` wrote, with the same model.

        Raises:
            ValueError: no such file, a damaged one, or it is of another model.
        """
        told, held = opened(path)
        differing = [key for key, value in json.loads(json.dumps(identity(model))).items() if told["model"].get(key) != value]
        must(not differing, f"{path}: the session of another model ({', '.join(differing)} differ); load it with the model that it was saved with")
        session = cls(model, built(Sampling, told["sampling"], f"{path}: sampling"))
        session.actions = tuple(told["actions"])
        session._seen = held["seen"].numpy()
        session._past = tuple(chunk_of(number, within(held, f"chunk.{number}."), session._device) for number in told["chunks"])
        session._null_ND = model.encode_text([session.sampling.negative])[0]
        session._stream.load({name: tensor.to(session._device) for name, tensor in within(held, "stream.").items()})
        if session._dialogue is not None:
            session._dialogue.load(within(held, "dialogue."))
        return session

    @property
    def _device(self) -> torch.device:
        return next(self.model.decoder.parameters()).device

    @property
    def _kind(self) -> torch.dtype:
        """Latents are float32 while they are denoised, whatever the weights are; float64 where those are."""
        return torch.promote_types(next(self.model.decoder.parameters()).dtype, torch.float32)

    def _context(self, action: str) -> Context:
        """What the next chunk is conditioned on: the action's text, and the state that the backbone predicts from all that was."""
        assert self._null_ND is not None
        text = self.model.encode_text([action])
        state = None
        if self._dialogue is not None:
            state = self._dialogue.step(self.frames, self.model.spec.chunks.fps, action)[None, None]
        with torch.no_grad():
            text_BGND, state_BGQS = self.model.conditions(text[:, None], state)
        if state_BGQS is None:
            return Context(text_BGND[0, 0], self._null_ND.to(text_BGND))
        null_state = state_BGQS if self.sampling.unconditional == "text" else torch.zeros_like(state_BGQS)
        return Context(text_BGND[0, 0], self._null_ND.to(text_BGND), state_BGQS[0, 0], null_state[0, 0])

    def _shown(self, action: str, shape: tuple[int, ...]) -> Frames_THWC:
        """The newest chunk's frames, decoded behind all that came before; the session has now done `action`."""
        frames_THWC = self._decoded(self._past[-1].latents_BCFHW)
        must(frames_THWC.shape[1:] == shape[1:], f"the autoencoder gave frames of {frames_THWC.shape[1:]}, of {shape[1:]} they should be")
        self._seen, self.actions = frames_THWC, (*self.actions, action)
        return self.frames

    def _decoded(self, latents_BCFHW: Tensor) -> Frames_THWC:
        """The frames of the film's next latents."""
        with torch.no_grad():
            video_BCTHW = self._stream.push(latents_BCFHW)
        bytes_CTHW = ((video_BCTHW[0].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        frames_THWC: Frames_THWC = bytes_CTHW.permute(1, 2, 3, 0).cpu().numpy()
        return frames_THWC

    def _video(self, frames_THWC: Frames_THWC) -> Tensor:
        """Frames as the autoencoder takes them: [1, 3, T, H, W] in [-1, 1]."""
        video = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(3, 0, 1, 2)[None].to(self._device, self._kind)
        return video / 127.5 - 1


def film(session: Session, image_HWC: npt.NDArray[np.uint8], actions: Iterable[str]) -> Iterator[Frames_THWC]:
    """The whole film piece by piece: the image, then each action's frames; in shared windows where the model allows it."""
    yield session.start(image_HWC)
    if session.model.predicts_states:
        yield from map(session.step, actions)
    else:
        yield from session.scripted(list(actions))


def check_image(model: GLP, image_HWC: npt.NDArray[np.uint8]) -> None:
    """Refuses what the model cannot begin with.

    Raises:
        ValueError: no uint8 RGB picture, or sides that a token's pixels do not divide.
    """
    shape = np.shape(image_HWC)
    colour = len(shape) == 3 and shape[2] == 3 and image_HWC.dtype == np.uint8
    must(colour, f"an image of {shape}: uint8 RGB [height, width, 3] is needed")
    rows, columns = (model.spec.vae.spatial * side for side in model.spec.decoder.patch[1:])
    fits = shape[0] % rows == 0 and shape[1] % columns == 0 and min(shape) > 0
    must(fits, f"an image of {shape[1]}x{shape[0]} px: its sides must be multiples of {columns} and {rows} (a token's pixels); crop or resize it")


def _sampler(model: GLP, sampling: Sampling) -> ChunkSampler:
    """The sampler of a model with these settings; warns where the shift is not the one of its training."""
    schedule = model.schedule if sampling.shift is None else NoiseSchedule(sampling.shift, model.schedule.steps)
    agree(model.schedule, schedule)

    def velocity(latents_BCFHW: Tensor, levels: Levels, text_BGND: Tensor, state_BGQS: Tensor | None, outputs: Outputs) -> Tensor:
        with torch.no_grad():
            return model.velocity(latents_BCFHW, levels, text_BGND, state_BGQS, outputs)

    return ChunkSampler(
        velocity=velocity,
        plan=model.plan,
        schedule=schedule,
        spec=model.spec.chunks,
        solver=Solver(schedule.grid(sampling.steps), sampling.solver),
        guidance=sampling.guidance,
        seed=sampling.seed,
    )
