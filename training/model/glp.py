"""GLP: encode what is seen, predict the next latent state, generate what will be seen; PAN's world model as one module."""

# Shape suffixes: B batch, R rounds, C channels, F latent frames, H W latent height and width, G contexts of a window, N text tokens, D text width,
# Q queries, S state width; T pixel frames.

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from training.diffusion.schedule import NoiseSchedule
from training.diffusion.swin import Levels, draw, layout, noised, target
from training.model import objectives
from training.model.decoder import Outputs
from training.model.plain import must
from training.model.spec import ModelSpec

Unconditional = Literal["text", "both"]
"""What the branch that guidance leads away from does without: the text (PAN's sampler keeps the state, we suppose), or the state too."""


@dataclass(frozen=True)
class Window:
    """A batch of training windows: clean latents, and what each chunk is conditioned on.

    Attributes:
        latents_BCFHW: condition frame, then chunks; normalised.
        text_BGND: the actions, encoded and zero-padded, one a chunk.
        state_BGQS: the predicted states, one a chunk; None for a model of texts alone.
        first_B: bool, whether the window begins at its clip's first frame.
        null_ND: the empty text, encoded; needed where contexts are dropped, or where the condition frame has a context of its own.
        real_B: bool, which windows are learnt from; the others only fill the batch up. None: all.
    """

    latents_BCFHW: Tensor
    text_BGND: Tensor
    state_BGQS: Tensor | None
    first_B: Tensor
    null_ND: Tensor | None = None
    real_B: Tensor | None = None

    def only(self, number: int) -> "Window":
        """One of them, as a batch of its own."""
        mine = slice(number, number + 1)
        rows = {name: value[mine] for name, value in vars(self).items() if value is not None and name != "null_ND"}
        return replace(self, **rows)


@dataclass(frozen=True)
class WindowLoss:
    """A loss, and what it is made of.

    Attributes:
        loss: float32 scalar, to learn from.
        error_BF: each latent frame's mean squared error, unweighted.
        levels: the noise that was drawn.
    """

    loss: Tensor
    error_BF: Tensor
    levels: Levels
    schedule: NoiseSchedule

    def by_noise(self, buckets: int = 10) -> objectives.Tally:
        """The error by place in the noise schedule."""
        return objectives.by_noise(self.error_BF, self.levels.sigma_BF, self.levels.loss_BF, self.schedule, buckets)

    def by_chunk(self) -> objectives.Tally:
        """The error by chunk of the window."""
        return objectives.by_chunk(self.error_BF, self.levels.loss_BF, self.levels.layout.cond, self.levels.layout.chunks)


class GLP(nn.Module):
    """p(o_t+1 | o_<=t, a_<=t): generative latent prediction.

        h  the backbone's vision tower      o_t -> s_t                                  what is seen, as a latent state
        f  the backbone's language model    (s_1, a_1, ..., s_t, a_t) -> s_t+1          what the action leads to, still latent
        g  the decoder                      (s_t+1, a_t, o_t) -> o_t+1                  what that will look like, by denoising latents of the autoencoder

    What is frozen, and which part learns when, is not this module's business.

    Args:
        spec: what the parts are.
        decoder: g, a `Decoder`. vae: a `Vae`, pixels to latents and back. text: a `TextEncoder`.
        backbone: h and f, a `Backbone`; None for a model that knows actions as texts alone, such as PAN's after its first phase.
        connector: for spec.connector "qformer": turns states into tokens that take the text's place.

    Raises:
        ValueError: the parts do not fit the spec.

    Source: PAN (arXiv 2511.09057v3), section 3, equations 3 to 9.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        decoder: nn.Module,
        vae: nn.Module,
        text: nn.Module,
        backbone: nn.Module | None = None,
        connector: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.spec, self.plan, self.schedule = spec, spec.plan, NoiseSchedule(spec.shift)
        needed = spec.connector == "qformer"
        must((connector is not None) == needed, f"model {spec.name}: connector {spec.connector!r} {'lacks its' if needed else 'has no'} module; see its spec")
        must(not needed or backbone is not None, f"model {spec.name}: a connector without a backbone has nothing to connect")
        self.decoder, self.vae, self.text, self.backbone, self.connector = decoder, vae, text, backbone, connector

    @property
    def predicts_states(self) -> bool:
        """Whether there is a latent state; otherwise actions are known as texts alone."""
        return self.backbone is not None

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """Pixels in [-1, 1] to normalised latents; never learnt from."""
        with torch.no_grad():
            return self.vae.encode(video_BCTHW)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Actions to [B, N, D], zero-padded to the decoder's length; never learnt from."""
        with torch.no_grad():
            return self.text.encode(texts)

    def predict_states(self, dialogues: Sequence[Any]) -> Tensor:
        """f after h: the next latent state of every round, [B, R, Q, S]; gradients reach the queries through the frozen language model.

        Raises:
            ValueError: the model has no backbone.
        """
        must(self.backbone is not None, f"model {self.spec.name} predicts no states: it was built without a backbone")
        assert self.backbone is not None
        states_BRQS: Tensor = self.backbone(dialogues)
        return states_BRQS

    def conditions(self, text_BGND: Tensor, state_BGQS: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the decoder attends to: text and state as they are (PAN), or the state's tokens in the text's place (Pandora's recipe)."""
        if self.connector is None or state_BGQS is None:
            return text_BGND, state_BGQS
        tokens_BGND = self.connector(state_BGQS)
        spare = text_BGND.shape[2] - tokens_BGND.shape[2]
        must(spare >= 0, f"model {self.spec.name}: {tokens_BGND.shape[2]} tokens of the connector do not fit a text of {text_BGND.shape[2]}")
        return nn.functional.pad(tokens_BGND, (0, 0, 0, spare)), None

    def velocity(self, latents_BCFHW: Tensor, levels: Levels, text_BGND: Tensor, state_BGQS: Tensor | None, outputs: Outputs = "chunks") -> Tensor:
        """g: which way the noised latents go to noise, eps - x, in their dtype; of all chunks' frames, or see `Outputs`.

        Args:
            text_BGND, state_BGQS: as `conditions` gives them.
        """
        told = self.decoder(latents_BCFHW, levels.timestep_BF, text_BGND, state_BGQS, levels.layout, outputs=outputs)
        return told.to(latents_BCFHW.dtype)

    def window_loss(
        self,
        window: Window,
        generator: torch.Generator,
        *,
        weighting: objectives.Weighting = "none",
        dropped: float = 0.1,
        unconditional: Unconditional = "text",
    ) -> WindowLoss:
        """The flow-matching loss of a batch of windows, at levels and with noise that `generator` draws. It is 0 where no window is real.

        Args:
            weighting: PAN weighs all levels alike.
            dropped: share of windows whose text is the empty one, so that guidance has something to lead away from; PAN gives none, 0.1 is usual.
            unconditional: what these windows do without.

        Raises:
            ValueError: the window does not fit the plan.
        """
        spec, latents = self.spec.chunks, window.latents_BCFHW
        whole = layout(self.plan, spec).frames
        must(latents.shape[2] == whole, f"model {self.spec.name}: a window of {latents.shape[2]} latent frames; plan {self.plan.name} takes {whole}")
        levels = on(draw(self.plan, self.schedule, spec, window.first_B, generator), latents.device)
        noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(latents)
        text, state = self.conditions(window.text_BGND, window.state_BGQS)
        text, state = self._dropped(text, state, window.null_ND, dropped, unconditional, generator)
        text, state = self._in_contexts(text, state, levels, window.null_ND)
        latents, noise = (x[:, :, : levels.layout.frames] for x in (latents, noise))
        told = self.velocity(noised(latents, noise, levels.sigma_BF), levels, text, state, "all")
        error = objectives.errors(told, target(latents, noise))
        weight = objectives.weights(levels.sigma_BF, self.schedule, weighting)
        if window.real_B is not None:
            levels = replace(levels, loss_BF=levels.loss_BF & window.real_B.to(levels.loss_BF.device)[:, None])
            if not bool(window.real_B.any()):
                return WindowLoss(error.sum() * 0, error, levels, self.schedule)
        return WindowLoss(objectives.flow_matching(error, levels.loss_BF, weight), error, levels, self.schedule)

    def alignment_loss(self, state_BRQS: Tensor, text_BRND: Tensor, real_B: Tensor | None = None) -> Tensor:
        """Pandora's first phase: what the connector makes of each state against the caption as the text encoder says it.

        Args:
            real_B: bool, which windows count; all by default. Of none the loss is 0, with a graph.

        Raises:
            ValueError: the model has no connector.
        """
        must(self.connector is not None, f"model {self.spec.name} has nothing to align: only a connector 'qformer' speaks the text's language")
        assert self.connector is not None
        told_BRND = self.connector(state_BRQS)
        if real_B is None:
            return objectives.alignment(told_BRND, text_BRND)
        real_B = real_B.to(told_BRND.device)
        return objectives.alignment(told_BRND[real_B], text_BRND[real_B]) if bool(real_B.any()) else told_BRND.sum() * 0

    def matching_loss(self, dialogues: Sequence[Any], real: Sequence[bool] | None = None) -> tuple[Tensor, int]:
        """A joint-embedding objective, for comparison: each predicted state against what the tower sees of the next round, pooled to as many tokens.

        All dialogues are heard, whether they count or not: what is spread over ranks must be called alike on all of them.

        Args:
            real: which dialogues count; all by default.

        Returns:
            The mean over all rounds that have a next one, and how many these are; 0 of none, with a graph.

        Raises:
            ValueError: the model has no backbone.
        """
        must(self.backbone is not None, f"model {self.spec.name} predicts no states: it was built without a backbone")
        assert self.backbone is not None
        states_BRQS, features = self.backbone(dialogues, seen=True)
        said, wanted = [], []
        for states_RQS, looks, counts in zip(states_BRQS, features, [True] * len(features) if real is None else real, strict=True):
            if counts and len(looks) > 1:
                said.append(states_RQS[: len(looks) - 1])
                wanted += [nn.functional.adaptive_avg_pool1d(tokens_NS.detach().T.float(), states_RQS.shape[1]).T for tokens_NS in looks[1:]]
        if not said:
            return states_BRQS.sum() * 0, 0
        return objectives.latent_matching(torch.cat(said), torch.stack(wanted)), len(wanted)

    def _dropped(
        self, text_BGND: Tensor, state_BGQS: Tensor | None, null_ND: Tensor | None, share: float, what: Unconditional, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Texts and states, some windows without."""
        draws = torch.rand(len(text_BGND), generator=generator, device=generator.device)  # at any share, so that the share changes no other noise
        if share == 0:
            return text_BGND, state_BGQS
        must(null_ND is not None, f"dropping {share:g} of the texts needs the empty text, encoded: set Window.null_ND, or dropped=0")
        assert null_ND is not None
        gone = (draws < share).to(text_BGND.device)[:, None, None, None]
        without = torch.where(gone, null_ND.to(text_BGND), text_BGND)
        return without, torch.where(gone, torch.zeros_like(state_BGQS), state_BGQS) if what == "both" and state_BGQS is not None else state_BGQS

    def _in_contexts(self, text_BGND: Tensor, state_BGQS: Tensor | None, levels: Levels, null_ND: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """One text and state a context of the layout: those of the chunks that are there, and the condition frame's own if it has one."""
        layout, chunks = levels.layout, len(levels.layout.chunks)
        text, state = text_BGND[:, :chunks], None if state_BGQS is None else state_BGQS[:, :chunks]
        if layout.contexts == chunks:
            return text, state
        must(null_ND is not None, f"plan {self.plan.name} tells the condition frame the empty text: set Window.null_ND")
        assert null_ND is not None
        text = torch.cat([text, null_ND.to(text).expand(len(text), 1, -1, -1)], 1)
        return text, None if state is None else torch.cat([state, torch.zeros_like(state[:, :1])], 1)


def on(levels: Levels, device: torch.device) -> Levels:
    """`levels` with its tensors on `device`."""
    return Levels(levels.sigma_BF.to(device), levels.present_BG.to(device), levels.loss_BF.to(device), levels.layout)
