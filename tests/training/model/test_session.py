"""Round by round with a cache: the same as the whole forward, at most so many rounds, futures that know nothing of one another."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.model.worlds import SPEC, frames, lively, shown, spec, told
from training.model.backbone import Backbone
from training.model.dialogue import places, turns
from training.model.session import BackboneSession
from training.model.spec import SPECS

TOLERANCE = 1e-5  # on values of order 1


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return lively(spec(max_rounds=4))


def walked(backbone: Backbone, rounds: list[Any]) -> BackboneSession:
    session = backbone.session()
    for one in rounds:
        session.step(*one)
    return session


@pytest.mark.parametrize("final_norm", [True, False])
@pytest.mark.parametrize("feedback", ["queries", "hidden"])
def test_step_by_step_is_the_whole_forward(feedback: str, final_norm: bool) -> None:
    backbone = lively(spec(feedback=feedback, final_norm=final_norm))
    rounds = shown(1, 5)
    with torch.no_grad():
        whole = backbone([told(rounds)])[0]
    session = backbone.session()
    for number, one in enumerate(rounds):
        state = session.step(*one)
        assert state.shape == (SPEC.queries, SPEC.hidden)
        torch.testing.assert_close(state, whole[number], atol=TOLERANCE, rtol=0)


def test_what_stands_at_the_queries_tells_later_rounds() -> None:
    rounds = shown(1, 2)
    with torch.no_grad():
        plain, fed = (lively(spec(feedback=feedback))([told(rounds)])[0] for feedback in ("queries", "hidden"))
    torch.testing.assert_close(fed[0], plain[0], atol=TOLERANCE, rtol=0)
    assert (fed[1] - plain[1]).abs().max() > 1e-2


def test_hidden_feedback_is_a_forward_over_the_states() -> None:
    """The second state, by one pass without a cache in which the first state stands where the first round's queries were."""
    backbone, said = lively(spec(feedback="hidden")), told(shown(1, 2))
    script = turns(said, SPEC, backbone.tokenizer)
    with torch.no_grad():
        first, second = backbone([said])[0]
        embeds, where, _ = backbone._embedded(script, backbone.look([r.sight for r in said.rounds]), 0)
        asked = places([turn.queries for turn in script], script).view(2, SPEC.queries)
        embeds[asked[0]] = first
        wanted = backbone._listen(embeds[None], where[:, None], None)[0, asked[1]]
    torch.testing.assert_close(second, wanted, atol=TOLERANCE, rtol=0)


def test_hidden_feedback_is_differentiable() -> None:
    backbone = lively(spec(feedback="hidden"))
    backbone([told(shown(1, 2))])[0, 1, 0, 0].backward()
    assert backbone.query_embed.grad.abs().max() > 1e-4


def test_the_oldest_round_falls_out(backbone: Backbone) -> None:
    rounds = shown(1, 7)
    session, longer = backbone.session(), lively(spec(max_rounds=7))
    for number, one in enumerate(rounds):
        state = session.step(*one)
        kept = rounds[max(0, number - 3) : number + 1]
        assert session.rounds == len(kept)
        with torch.no_grad():
            torch.testing.assert_close(state, backbone([told(kept)])[0, -1], atol=TOLERANCE, rtol=0)
            if number > 3:  # a cache that had kept the oldest round would not have done
                assert (state - longer([told(rounds[: number + 1])])[0, -1]).abs().max() > 1e-3


def test_pans_limit_is_ten_rounds() -> None:
    backbone = lively()
    assert SPECS["pan_14b"].backbone.max_rounds == SPEC.max_rounds == 10
    rounds = shown(3, 12)
    session = walked(backbone, rounds[:11])
    state = session.step(*rounds[11])
    assert session.rounds == 10
    with torch.no_grad():
        torch.testing.assert_close(state, backbone([told(rounds[2:])])[0, 9], atol=TOLERANCE, rtol=0)


def test_the_tower_looks_at_each_chunk_once(backbone: Backbone) -> None:
    looks: list[int] = []
    hook = backbone.model.visual.register_forward_hook(lambda *_: looks.append(1))
    walked(backbone, shown(1, 6))
    hook.remove()
    assert len(looks) == 6


def test_only_the_new_round_is_read(backbone: Backbone) -> None:
    lengths: list[int] = []
    hook = backbone.model.language_model.norm.register_forward_hook(lambda _, __, out: lengths.append(out.shape[1]))
    walked(backbone, [*shown(1, 1), *[(frames(r), 16.0, "on") for r in range(5)]])
    hook.remove()
    first, second = lengths[0], lengths[1]
    assert lengths[:4] == [first, second, second, second]
    assert lengths[4] > 4 * second  # the four that stay, and the system's words


def test_futures_are_independent(backbone: Backbone) -> None:
    rounds = shown(1, 3)
    session = walked(backbone, rounds[:2])
    left, right = session.fork(), session.fork()
    one = left.step(rounds[2][0], 16.0, "to the left")
    other = right.step(rounds[2][0], 16.0, "to the right")
    assert (one - other).abs().max() > 1e-2
    for fork, action, state in ((session.fork(), "to the left", one), (session, "to the right", other)):
        assert torch.equal(fork.step(rounds[2][0], 16.0, action), state)
    # Both go on past the limit, one after the other, as if alone.
    alone = walked(backbone, [*rounds[:2], (rounds[2][0], 16.0, "to the left")])
    for seed in range(4):
        left_state = left.step(frames(seed), 16.0, "on")
        right.step(frames(seed + 50), 16.0, "back")
        assert torch.equal(left_state, alone.step(frames(seed), 16.0, "on"))


@pytest.mark.parametrize("rounds", [0, 1, 3, 6])
def test_saved_and_loaded_it_goes_on_to_the_bit(backbone: Backbone, tmp_path: Path, rounds: int) -> None:
    from safetensors.torch import load_file, save_file

    session = walked(backbone, shown(1, rounds))
    save_file(session.state_dict(), tmp_path / "session.safetensors")
    loaded = backbone.session()
    loaded.load(load_file(tmp_path / "session.safetensors"))
    assert loaded.rounds == session.rounds
    for seed in range(3):
        given = (frames(seed, 1 if rounds + seed == 0 else 8), 16.0, "é" * seed)
        assert torch.equal(loaded.step(*given), session.step(*given))


@pytest.mark.parametrize("rounds", [0, 1, 3, 6])
def test_saved_without_its_cache_it_reads_the_rounds_anew(backbone: Backbone, rounds: int) -> None:
    session, loaded = walked(backbone, shown(1, rounds)), backbone.session()
    state = session.state_dict(cache=False)
    assert not any(name.startswith("cache") for name in state)
    loaded.load(state)
    for seed in range(3):
        given = (frames(seed, 1 if rounds + seed == 0 else 8), 16.0, "on")
        torch.testing.assert_close(loaded.step(*given), session.step(*given), atol=TOLERANCE, rtol=0)


def test_another_models_session_is_refused(backbone: Backbone) -> None:
    state = walked(backbone, shown(1, 2)).state_dict()
    session = walked(backbone, shown(5, 1))
    with pytest.raises(ValueError, match=r"cache\.2\.keys"):
        session.load({name: tensor for name, tensor in state.items() if name != "cache.2.keys"})
    with pytest.raises(ValueError, match=r"surplus"):
        session.load(state | {"surplus": torch.zeros(1)})
    with pytest.raises(ValueError, match="63 wide, the model 64"):
        session.load(state | {"rounds.0.features": state["rounds.0.features"][:, :63]})
    with pytest.raises(ValueError, match=r"layer 1 of the saved cache.*tokenizer's"):
        session.load(state | {"cache.1.values": state["cache.1.values"][:, :, :-1]})
    with pytest.raises(ValueError, match="layer 0 of the saved cache"):
        session.load(state | {"rounds.1.action": torch.zeros(0, dtype=torch.uint8)})
    assert session.rounds == 1


def test_a_step_that_fails_leaves_the_session_as_it_was(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = shown(1, 3)
    session, twin = walked(backbone, rounds[:2]), walked(backbone, rounds[:2])
    with pytest.raises(ValueError, match="uint8 array"):
        session.step(rounds[2][0].astype(float), 16.0, "on")
    last = backbone.model.language_model.layers[-1].mlp
    hook = last.register_forward_hook(_fail)
    with pytest.raises(MemoryError):
        session.step(*rounds[2])
    hook.remove()
    assert torch.equal(session.step(*rounds[2]), twin.step(*rounds[2]))


def _fail(*_: Any) -> None:
    raise MemoryError


def test_no_gradients_are_kept(backbone: Backbone) -> None:
    assert not walked(backbone, shown(1, 1)).step(frames(1), 16.0, "on").requires_grad


def test_a_cache_and_checkpointed_layers_exclude_one_another() -> None:
    backbone = lively().train()
    backbone.checkpoint_layers()
    with pytest.raises(ValueError, match="exclude one another"):
        backbone.session().step(*shown(1, 1)[0])
    assert backbone.eval().session().step(*shown(1, 1)[0]).shape == (SPEC.queries, SPEC.hidden)
