"""What a model is, as data: PAN's parts and how they fit, and the table of the models that there are.

Nothing of a run stands here (no learning rate, no precision, no paths), and nothing imports torch, so that a plan can be made without it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from training.diffusion.plan import PLANS, WindowPlan
from training.model.part_specs import WAN_MEAN, WAN_STD, BackboneSpec, ChunkSpec, DecoderSpec, QFormerSpec, SpecialIds, TextSpec, VaeSpec, VisionSpec
from training.model.plain import built, must

__all__ = [
    "SPECS",
    "WAN_MEAN",
    "WAN_STD",
    "BackboneSpec",
    "ChunkSpec",
    "DecoderSpec",
    "ModelSpec",
    "QFormerSpec",
    "SpecialIds",
    "TextSpec",
    "VaeSpec",
    "VisionSpec",
]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A whole model.

    Raises:
        ValueError: two parts that must fit one another do not.
    """

    name: str
    decoder: DecoderSpec
    backbone: BackboneSpec = field(default_factory=BackboneSpec)
    vae: VaeSpec = field(default_factory=VaeSpec)
    text: TextSpec = field(default_factory=TextSpec)
    chunks: ChunkSpec = field(default_factory=ChunkSpec)
    connector: Literal["linear", "qformer"] = "linear"
    """linear: the decoder's own `state_proj` (PAN). qformer: the states become text-like tokens, and the decoder has no state stream (Pandora's recipe)."""
    qformer: QFormerSpec | None = None
    history: Literal["swin", "last_frames"] = "swin"
    window: WindowPlan | None = None
    """How the window's chunks are noised, if otherwise than `history` says (`plan`)."""
    shift: float = 5.0
    """Of the noise schedule that the weights were trained with, and must be sampled with."""
    objective: Literal["flow", "alignment"] = "flow"
    """What the model's first phase learns: PAN's flow matching, or Pandora's alignment of the connector's output with the text encoder's."""
    height: int = 480
    """px of the frames that the model is meant for."""
    width: int = 832

    def __post_init__(self) -> None:
        decoder, linear = self.decoder, self.connector == "linear"
        for what, one, other in (
            ("decoder.in_channels and vae.channels", decoder.in_channels, self.vae.channels),
            ("decoder.text_dim and text.d_model", decoder.text_dim, self.text.d_model),
            ("decoder.text_tokens and text.tokens", decoder.text_tokens, self.text.tokens),
            ("decoder.queries and backbone.queries", decoder.queries, self.backbone.queries),
            ("chunks.temporal and vae.temporal", self.chunks.temporal, self.vae.temporal),
            ("chunks.window_chunks and the window plan's chunks", self.chunks.window_chunks, self.plan.chunks),
            ("decoder.state_dim and backbone.hidden", decoder.state_dim, self.backbone.hidden if linear and decoder.state_dim is not None else None),
        ):
            must(one == other, f"model {self.name}: {what} are {one} and {other}; they must be equal (a connector 'qformer' wants state_dim null)")
        must(self.shift > 0, f"model {self.name}: shift {self.shift}; it must be above 0")
        must(
            linear == (self.qformer is None),
            f"model {self.name}: connector {self.connector!r} and qformer {self.qformer}: give `qformer` with, and only with, connector 'qformer'",
        )

    @property
    def plan(self) -> WindowPlan:
        """How the window's chunks are noised: `window`, or PAN's two chunks in flight ("swin"), or each by itself behind the last frames ("last_frames")."""
        return self.window or PLANS[{"swin": "causal_swin", "last_frames": "last_frame"}[self.history]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for model.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ModelSpec":
        """The inverse of `to_dict`, also after a way through JSON.

        Raises:
            ValueError: a key is unknown or missing, or a value is of another kind.
        """
        return built(cls, data, "model")


# A whole model in miniature: every part is there, each path is taken, and a forward takes milliseconds on one core.
_DEBUG = ModelSpec(
    name="debug",
    decoder=DecoderSpec(dim=64, ffn=160, heads=4, layers=2, text_dim=48, text_tokens=16, freq_dim=32, state_dim=64, queries=8),
    backbone=BackboneSpec(
        hidden=64,
        layers=3,
        heads=4,
        kv_heads=2,
        intermediate=128,
        vocab=272,
        mrope_section=(2, 3, 3),
        max_positions=4096,
        vision=VisionSpec(depth=3, hidden=32, intermediate=64, heads=2, full_attention_layers=(1,), video_pixels=(56 * 56, 768 * 28 * 28)),
        ids=SpecialIds(pad=256, start=257, end=258, vision_start=259, vision_end=260, vision=261, image=262, video=263),  # after the 256 bytes
        queries=8,
        lm_head=True,
    ),
    vae=VaeSpec(kind="small", base_dim=16, mean=(0.0,) * 16, std=(1.0,) * 16),
    text=TextSpec(vocab=272, d_model=48, d_kv=12, d_ff=96, heads=4, layers=2, tokens=16),
    chunks=ChunkSpec(chunk_latents=2),
    height=64,
    width=64,
)
# The miniature for films of the block world: its text stream hears a whole action (two pushes have 56 bytes, 88 with a camera that pans), and its chunk of
# 8 frames lasts as long as an action does in curated films, 2.5 s.
_BLOCKWORLD = replace(
    _DEBUG,
    name="blockworld",
    decoder=replace(_DEBUG.decoder, text_tokens=96),
    text=replace(_DEBUG.text, tokens=96),
    chunks=ChunkSpec(chunk_latents=2, fps=3.2),
)
_PAN_14B = ModelSpec(name="pan_14b", decoder=DecoderSpec(dim=5120, ffn=13824, heads=40, layers=40))
_PAN_1_3B = replace(_PAN_14B, name="pan_1_3b", decoder=DecoderSpec(dim=1536, ffn=8960, heads=12, layers=30))


def _pandora(of: ModelSpec, name: str, chunks: ChunkSpec, qformer: QFormerSpec, queries: int) -> ModelSpec:
    """Pandora's recipe on the decoder of `of`: queries through a Q-Former into the text stream, last frames as history, first aligned, then tuned."""
    decoder, backbone = replace(of.decoder, state_dim=None, queries=queries), replace(of.backbone, queries=queries)
    return replace(
        of, name=name, decoder=decoder, backbone=backbone, chunks=chunks, connector="qformer", qformer=qformer, history="last_frames", objective="alignment"
    )


_PANDORA = _pandora(_PAN_1_3B, "pandora_recipe", ChunkSpec(chunk_latents=4, window_chunks=1, fps=8.0), QFormerSpec(), 64)
_SMALL = QFormerSpec(queries=6, hidden=32, layers=2, heads=2, intermediate=64)
_PANDORA_DEBUG = _pandora(_DEBUG, "pandora_debug", ChunkSpec(chunk_latents=2, window_chunks=1, fps=8.0), _SMALL, 8)

SPECS: Mapping[str, ModelSpec] = MappingProxyType({spec.name: spec for spec in (_DEBUG, _BLOCKWORLD, _PAN_1_3B, _PAN_14B, _PANDORA, _PANDORA_DEBUG)})
"""The models by name.

Source of Pandora's numbers: arXiv 2406.09455 and maitrix-org/Pandora: 64 queries; 16 frames a round at 8 a second after the last 4, one latent frame.
"""
