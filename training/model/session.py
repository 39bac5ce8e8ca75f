"""A dialogue that goes on round by round, with a key/value cache: what a rollout asks for its next states.

Shapes: Q queries a round, S the language model's width.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.model.backbone import Backbone, new_cache
from training.model.dialogue import Turn, round_turn, system_turn
from training.model.plain import must
from training.model.vision import Frames_THWC, see, tokens


@dataclass(frozen=True)
class _Past:
    """A round as it is kept: what the tower saw instead of the pixels."""

    features: Any
    grid: tuple[int, int, int]
    seconds: float | None
    action: str


class BackboneSession:
    """The rounds so far, at most `spec.max_rounds`, and their keys and values; without gradients."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._rounds: list[_Past] = []
        self._cache: Any = new_cache()
        self._behind = 0

    @property
    def rounds(self) -> int:
        """Rounds that the model still sees."""
        return len(self._rounds)

    def step(self, frames_THWC: Frames_THWC, fps: float, action: str) -> Any:
        """The state that `action` leads to, [Q, S]: the same as a whole forward over the last `max_rounds` rounds.

        A round's tokens are added to the cache. When the oldest round falls out, all that stay are read anew, since their keys and values know of it.

        Args:
            frames_THWC: uint8 RGB [T, H, W, 3]: the first picture, then each chunk.
            fps: frames a second of `frames_THWC`.
            action: what is done next.

        Raises:
            ValueError: the frames are none, or the action does not fit the model; the session stays as it was.
        """
        backbone, spec = self._backbone, self._backbone.spec
        sight = see(frames_THWC, fps, spec.vision)
        with torch.no_grad():
            features = backbone.look([sight])[0].contiguous()
        rounds = [*self._rounds, _Past(features, sight.grid, sight.seconds, action)]
        anew = len(rounds) == 1 or len(rounds) > spec.max_rounds
        rounds = rounds[-spec.max_rounds :]
        cache, begin = (new_cache(), 0) if anew else (_twin(self._cache), self._behind)
        states_RQS, behind = self._read(rounds if anew else rounds[-1:], cache, begin)
        self._rounds, self._cache, self._behind = rounds, cache, behind
        return states_RQS[-1]

    def fork(self) -> "BackboneSession":
        """A session with the same past and a future of its own; the past is shared, not copied."""
        twin = BackboneSession(self._backbone)
        twin._rounds, twin._cache, twin._behind = list(self._rounds), _twin(self._cache), self._behind
        return twin

    def state_dict(self, cache: bool = True) -> dict[str, Any]:
        """The whole session as flat tensors, fit for one safetensors file.

        Args:
            cache: with keys and values, from which `load` goes on to the bit (1 GB for ten rounds of the 7B model in bfloat16); without, it reads the rounds
                anew, and later states are the same but for rounding.
        """
        state = {"behind": torch.tensor(self._behind)}
        for number, past in enumerate(self._rounds):
            state[f"rounds.{number}.features"] = past.features
            state[f"rounds.{number}.grid"] = torch.tensor(past.grid)
            state[f"rounds.{number}.seconds"] = torch.tensor(math.nan if past.seconds is None else past.seconds, dtype=torch.float64)
            state[f"rounds.{number}.action"] = torch.tensor(list(past.action.encode("utf-8")), dtype=torch.uint8)
        for number, layer in enumerate(self._cache.layers if cache else ()):
            state[f"cache.{number}.keys"], state[f"cache.{number}.values"] = layer.keys.contiguous(), layer.values.contiguous()
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave, on the backbone's device and in its precision.

        Raises:
            ValueError: it is not a session of this model; the session stays as it was.
        """
        spec, like = self._backbone.spec, self._backbone.model.language_model.embed_tokens.weight
        count = sum(name.endswith(".features") for name in state)
        layers = spec.layers if any(name.startswith("cache.") for name in state) else 0
        names = {"behind"} | {f"rounds.{r}.{part}" for r in range(count) for part in ("features", "grid", "seconds", "action")}
        names |= {f"cache.{layer}.{part}" for layer in range(layers) for part in ("keys", "values")}
        must(names == set(state), f"session: the saved state is not of this model; {sorted(names ^ set(state))[:4]} are missing or too many")
        rounds, cache = [], new_cache()
        for number in range(count):
            features, grid, seconds, action = (state[f"rounds.{number}.{part}"] for part in ("features", "grid", "seconds", "action"))
            must(
                features.shape[-1] == spec.hidden, f"session: the saved features are {features.shape[-1]} wide, the model {spec.hidden}; it is another model's"
            )
            clock = float(seconds)
            words = bytes(action.tolist()).decode("utf-8")
            rounds.append(_Past(features.to(like), tuple(grid.tolist()), None if math.isnan(clock) else clock, words))
        length = sum(len(turn.ids) for turn in self._script(rounds, opening=True))
        shape = (1, spec.kv_heads, length, spec.hidden // spec.heads)
        for number in range(layers):
            pair = [state[f"cache.{number}.{part}"].to(like) for part in ("keys", "values")]
            found = {tuple(tensor.shape) for tensor in pair}
            must(found == {shape}, f"session: layer {number} of the saved cache is of shape {sorted(found)}, not {shape}; it is another model's or tokenizer's")
            cache.update(*pair, number)
        if rounds and not layers:
            self._read(rounds, cache, 0)
        self._rounds, self._cache, self._behind = rounds, cache, int(state["behind"])

    def _read(self, rounds: Sequence[_Past], cache: Any, begin: int) -> tuple[Any, int]:
        """The states of rounds that follow what is in `cache`, and the position behind them; with the system's words if nothing is."""
        with torch.no_grad():
            return self._backbone.answer(self._script(rounds, opening=begin == 0), [past.features for past in rounds], begin, cache)

    def _script(self, rounds: Sequence[_Past], opening: bool) -> list[Turn]:
        """The turns of `rounds`, the system's in front if they open the dialogue."""
        spec, tokenizer = self._backbone.spec, self._backbone.tokenizer
        grids = [tokens(past.grid, past.seconds, spec.vision) for past in rounds]
        script = [round_turn(past.action, grid, past.seconds is None, spec, tokenizer) for past, grid in zip(rounds, grids, strict=True)]
        return [system_turn(spec, tokenizer), *script] if opening else script


def _twin(cache: Any) -> Any:
    """A cache that grows on its own; the tensors, which no cache writes into, are shared."""
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin
