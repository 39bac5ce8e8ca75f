"""The backbone: Qwen2.5-VL reads the rounds so far and answers each with the next latent state, at the places of learned queries.

h, the vision tower, and f, the language model, are transformers' own modules; the only parameters of PAN's are `query_embed`.

Shapes: B dialogues, R rounds, Q queries a round, S the language model's width, L tokens, N patches.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from training.model.dialogue import Dialogue, Turn, places, turns
from training.model.mrope import positions
from training.model.plain import must
from training.model.spec import BackboneSpec
from training.model.tokens import Tokenizer, default_tokenizer
from training.model.vision import Sight

if TYPE_CHECKING:
    from training.model.session import BackboneSession


def qwen_config(spec: BackboneSpec, attention: str = "sdpa") -> Any:
    """transformers' configuration of the same network.

    Every field is given: the hub's `vision_config` leaves some to defaults that transformers has since changed (width 3584, 4 tokens a second).
    """
    from transformers import Qwen2_5_VLConfig

    rope = {"rope_type": "default", "rope_theta": spec.rope_theta, "mrope_section": list(spec.mrope_section)}
    text = {
        "vocab_size": spec.vocab,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.intermediate,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "max_position_embeddings": spec.max_positions,
        "rms_norm_eps": spec.eps,
        "rope_parameters": rope,
        "hidden_act": "silu",
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "bos_token_id": spec.ids.pad,
        "eos_token_id": spec.ids.end,
        "pad_token_id": None,
    }
    vision = {
        "depth": spec.vision.depth,
        "hidden_size": spec.vision.hidden,
        "intermediate_size": spec.vision.intermediate,
        "num_heads": spec.vision.heads,
        "patch_size": spec.vision.patch,
        "temporal_patch_size": spec.vision.temporal_patch,
        "spatial_merge_size": spec.vision.merge,
        "window_size": spec.vision.window,
        "fullatt_block_indexes": list(spec.vision.full_attention_layers),
        "tokens_per_second": spec.vision.tokens_per_second,
        "out_hidden_size": spec.hidden,
        "in_channels": 3,
        "hidden_act": "silu",
    }
    ids = {"image": spec.ids.image, "video": spec.ids.video, "vision_start": spec.ids.vision_start, "vision_end": spec.ids.vision_end}
    named = {f"{name}_token_id": number for name, number in ids.items()}
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, attn_implementation=attention, **named)


def new_cache() -> Any:
    """An empty key/value cache of transformers; it never writes into a tensor that it holds, so that copies may share them."""
    from transformers import DynamicCache

    return DynamicCache()


class Backbone(nn.Module):
    """h and f of PAN, frozen but differentiable: gradients reach `query_embed` through the language model, whose own parameters get none.

    Parameters are named as transformers names them in memory (`model.visual.*`, `model.language_model.*`, `lm_head.weight`), and `query_embed` [Q, S].
    """

    def __init__(self, spec: BackboneSpec, tokenizer: Tokenizer | None = None, *, train_all: bool = False, attention: str = "sdpa") -> None:
        """Random weights.

        Args:
            tokenizer: None for one token a byte, which only a spec of ours allows.
            train_all: every parameter learns, not the queries alone: for a small backbone that nobody has trained before.
            attention: transformers' name of an attention back end for tower and language model.
        """
        super().__init__()
        from transformers import Qwen2_5_VLModel

        self.spec = spec
        self._tokenizer = tokenizer
        self.model = Qwen2_5_VLModel(qwen_config(spec, attention))
        self.lm_head = nn.Linear(spec.hidden, spec.vocab, bias=False) if spec.lm_head else None
        self.query_embed = nn.Parameter(torch.empty(spec.queries, spec.hidden))
        self.reset_queries()
        self._tables = {name: table.detach().clone() for name, table in self.model.named_buffers()}
        self._checkpointed = False
        self.train_only_queries(not train_all)

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns actions into tokens.

        Raises:
            ValueError: none was given, and the spec is of a model with a vocabulary of its own.
        """
        if self._tokenizer is None:
            self._tokenizer = default_tokenizer(self.spec.ids)
        return self._tokenizer

    def reset_queries(self, generator: Any = None) -> None:
        """New queries, N(0, `spec.query_std`): what an official Qwen2.5-VL folder does not hold."""
        with torch.no_grad():
            self.query_embed.normal_(0.0, self.spec.query_std, generator=generator)

    def train_only_queries(self, only: bool = True) -> None:
        """Freezes all but the queries, or nothing."""
        for parameter in self.parameters():
            parameter.requires_grad_(not only)
        self.query_embed.requires_grad_(True)

    def checkpoint_layers(self, on: bool = True) -> None:
        """Keeps only the language model's layer boundaries for the backward pass, in training mode; the rest is computed twice."""
        for layer in self.model.language_model.layers:
            layer.gradient_checkpointing = on
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        self._checkpointed = on

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> "Backbone":
        """As of any module, except that the rotary tables stay float32: rounded to bfloat16 they would turn far tokens wrongly."""
        super()._apply(fn, recurse)
        for name, table in list(self.model.named_buffers()):
            owner, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(owner), leaf, self._tables[name].to(table.device))
        return self

    def forward(self, dialogues: Sequence[Dialogue], *, seen: bool = False) -> Any:
        """The state that each round leads to, as the language model's last hidden states at the queries' places (behind its final norm, if `spec.final_norm`).

        Teacher forcing: what is seen in round r is given, and the states are those that a session finds step by step.

        Args:
            dialogues: of any lengths; each round's state depends on its own dialogue's rounds up to it, and on nothing else.
            seen: also return what the tower makes of the sights; where parameters are spread over ranks, only a call of the whole module may look.

        Returns:
            states_BRQS, R of the longest dialogue; zeros behind a shorter one's last round. If `seen`, that and [tokens, S] of each round of each dialogue.

        Raises:
            ValueError: there is no dialogue, or one does not fit the model.
        """
        scripts, features = self._opened(dialogues)
        if self.spec.feedback == "hidden":
            each = [self.answer(script, looks, 0, new_cache())[0] for script, looks in zip(scripts, features, strict=True)]
        else:
            hidden_BLS = self._heard(scripts, features, self.spec.final_norm)
            each = [_at_queries(hidden_LS, script) for hidden_LS, script in zip(hidden_BLS, scripts, strict=True)]
        states_BRQS = pad_sequence(each, batch_first=True)
        return (states_BRQS, features) if seen else states_BRQS

    def caption_loss(self, dialogues: Sequence[Dialogue]) -> Any:
        """Mean cross-entropy (nats a token, float32 scalar) of the rounds' words, each predicted from all that stands before it; the turn's end counts.

        It teaches a small backbone to see and to speak: give each sight its caption as the action, and let all parameters learn.

        Raises:
            ValueError: the model has no `lm_head`.
        """
        must(self.lm_head is not None, "caption_loss: this backbone has no lm_head; set lm_head = true in its spec")
        scripts, features = self._opened(dialogues)
        hidden_BLS = self._heard(scripts, features)
        found, wanted = [], []
        for hidden_LS, script in zip(hidden_BLS, scripts, strict=True):
            words = [slice(turn.words.start, turn.words.stop + 1) for turn in script[1:]]
            at = places([slice(0, 0), *words], script).to(hidden_LS.device)
            found.append(hidden_LS[at - 1])
            wanted.append(self._ids(script)[at])
        logits = self.lm_head(torch.cat(found))  # type: ignore[misc]
        return cross_entropy(logits.float(), torch.cat(wanted))

    def look(self, sights: Sequence[Sight]) -> list[Any]:
        """What the tower makes of each sight: [tokens, S]. Without gradients, unless the tower's parameters learn."""
        tower = self.model.visual
        learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in tower.parameters())
        patches_NP = torch.cat([sight.patches_NP for sight in sights]).to(self.query_embed.device, tower.dtype)
        grids = torch.tensor([sight.grid for sight in sights], device=self.query_embed.device)
        with torch.set_grad_enabled(learns):
            seen = tower(patches_NP, grid_thw=grids)
        counts = [sight.tokens(self.spec.vision).count for sight in sights]
        return list(getattr(seen, "pooler_output", seen).split(counts))

    def answer(self, script: Sequence[Turn], features: Sequence[Any], begin: int, cache: Any) -> tuple[Any, int]:
        """The states of the rounds of one dialogue's next turns, and the position behind them; `cache` holds the turns before, and then these too.

        Args:
            script: the turns; the system's first where `cache` is empty.
            features: what `look` gave for each round's sight.
            begin: position behind the turns in `cache`.

        Returns:
            states_RQS of the rounds in `script`, and the next position.

        Raises:
            ValueError: layers are checkpointed, and training mode on: transformers drops the cache then.
        """
        must(
            not (self.training and self._checkpointed),
            "backbone: a cache and checkpointed layers exclude one another; call .eval() or checkpoint_layers(False) first",
        )
        embeds_LS, where_3L, behind = self._embedded(script, features, begin)
        if self.spec.feedback == "queries":
            return _at_queries(self._listen(embeds_LS[None], where_3L[:, None], cache, self.spec.final_norm)[0], script), behind
        states, done = [], 0
        for asked in places([turn.queries for turn in script], script).view(-1, self.spec.queries).tolist():
            first, stop = asked[0], asked[-1] + 1
            hidden_LS = self._listen(embeds_LS[None, done:stop], where_3L[:, None, done:stop], cache, self.spec.final_norm)[0]
            states.append(hidden_LS[first - done :])
            cache.crop(-self.spec.queries)
            self._listen(states[-1][None], where_3L[:, None, first:stop], cache, self.spec.final_norm)
            done = stop
        self._listen(embeds_LS[None, done:], where_3L[:, None, done:], cache, self.spec.final_norm)
        return torch.stack(states), behind

    def session(self) -> "BackboneSession":
        """A dialogue that goes on round by round."""
        from training.model.session import BackboneSession

        return BackboneSession(self)

    def _opened(self, dialogues: Sequence[Dialogue]) -> tuple[list[list[Turn]], list[list[Any]]]:
        """Each dialogue's turns, and what the tower sees in each of its rounds; all sights in one go."""
        must(len(dialogues) > 0, "backbone: there is no dialogue; give at least one")
        longest, most = max(len(dialogue.rounds) for dialogue in dialogues), self.spec.max_rounds
        must(longest <= most, f"backbone: a dialogue of {longest} rounds, the model reads {most}; give the last {most}")
        seen = iter(self.look([r.sight for dialogue in dialogues for r in dialogue.rounds]))
        return [turns(dialogue, self.spec, self.tokenizer) for dialogue in dialogues], [[next(seen) for _ in dialogue.rounds] for dialogue in dialogues]

    def _heard(self, scripts: Sequence[Sequence[Turn]], features: Sequence[Sequence[Any]], normed: bool = True) -> Any:
        """hidden_BLS of whole dialogues; shorter ones are filled up at the end, where no token of theirs can look: no mask is needed."""
        embedded = [self._embedded(script, seen, 0) for script, seen in zip(scripts, features, strict=True)]
        embeds_BLS = pad_sequence([embeds_LS for embeds_LS, _, _ in embedded], batch_first=True)
        where_BL3 = pad_sequence([where_3L.T for _, where_3L, _ in embedded], batch_first=True)
        return self._listen(embeds_BLS, where_BL3.permute(2, 0, 1), None, normed)

    def _listen(self, embeds_BLS: Any, where_3BL: Any, cache: Any, normed: bool = True) -> Any:
        """The language model's last hidden states, behind its final norm or before it."""
        language, before = self.model.language_model, []
        hook = None if normed else language.norm.register_forward_pre_hook(lambda _, given: before.append(given[0]))
        try:
            heard = language(inputs_embeds=embeds_BLS, position_ids=where_3BL, past_key_values=cache, use_cache=cache is not None)
        finally:
            if hook is not None:
                hook.remove()
        return heard.last_hidden_state if normed else before[0]

    def _ids(self, script: Sequence[Turn]) -> Any:
        return torch.tensor([number for turn in script for number in turn.ids], device=self.query_embed.device)

    def _embedded(self, script: Sequence[Turn], features: Sequence[Any], begin: int) -> tuple[Any, Any, int]:
        """embeds_LS of one dialogue's turns, with sights and queries in their places; positions [3, L]; the next position."""
        ids = self._ids(script)
        device, most = ids.device, int(ids.max())
        must(most < self.spec.vocab, f"backbone: the tokenizer gave token {most}, but the model's vocabulary has {self.spec.vocab}; it is another model's")
        where_3L, behind = positions([piece for turn in script for piece in turn.pieces], begin)
        must(behind <= self.spec.max_positions, f"backbone: the dialogue ends at position {behind}, the model reads {self.spec.max_positions}; shorten it")
        embeds_LS = self.model.language_model.embed_tokens(ids)
        seen, asked = places([turn.sight for turn in script], script).to(device), places([turn.queries for turn in script], script).to(device)
        queries = self.query_embed.to(embeds_LS.dtype).repeat(len(features), 1)
        embeds_LS = embeds_LS.index_copy(0, seen, torch.cat(list(features)).to(embeds_LS.dtype)).index_copy(0, asked, queries)
        return embeds_LS, where_3L.to(device), behind


def _at_queries(hidden_LS: Any, script: Sequence[Turn]) -> Any:
    """states_RQS: the hidden states at the queries' places of each round of `script`."""
    at = [turn.queries for turn in script]
    rounds = sum(part.stop > part.start for part in at)
    return hidden_LS[places(at, script).to(hidden_LS.device)].unflatten(0, (rounds, -1))
