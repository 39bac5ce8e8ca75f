"""The backbone: states at the queries, one dialogue untouched by another, the future by the past alone, gradients where they belong."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.training.model.worlds import SPEC, dialogue, lively, shown, spec, told
from training.model.backbone import Backbone, qwen_config
from training.model.dialogue import Dialogue, Round, turns
from training.model.spec import SPECS

TOLERANCE = 1e-5  # on values of order 1


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return lively()


def scalar(states_BRQS: Any) -> Any:
    """A number that each state's each entry changes (the final norm makes their squares' sum a constant)."""
    weights = torch.randn(states_BRQS.shape, generator=torch.Generator().manual_seed(9))
    return (states_BRQS * weights).sum()


def test_states_are_qwens_hidden_states_at_the_queries(backbone: Backbone) -> None:
    """Against transformers' own joined model, whose query tokens are ordinary ids with the queries as their embeddings."""
    first, (seen, _, action) = shown(1, 2)
    said = told([first, (seen, 8.0, action)])  # one second a patch, where each version's positions are right
    script = turns(said, SPEC, backbone.tokenizer)
    ids = torch.tensor([[number for turn in script for number in turn.ids]])
    table = backbone.model.language_model.embed_tokens
    embeds = table(ids).clone()
    embeds[ids == SPEC.ids.pad] = backbone.query_embed.repeat(2, 1)
    kinds = (ids == SPEC.ids.image).int() + 2 * (ids == SPEC.ids.video).int()
    picture, video = said.rounds[0].sight, said.rounds[1].sight
    grids = {"image_grid_thw": torch.tensor([picture.grid]), "video_grid_thw": torch.tensor([video.grid])}
    where, _ = backbone.model.get_rope_index(ids, mm_token_type_ids=kinds, second_per_grid_ts=[video.seconds], **grids)
    with torch.no_grad():
        for number, features in zip((SPEC.ids.image, SPEC.ids.video), backbone.look([picture, video]), strict=True):
            embeds[ids == number] = features
        whole = backbone.model.language_model(inputs_embeds=embeds, position_ids=where).last_hidden_state
        wanted = whole[ids == SPEC.ids.pad].view(1, 2, SPEC.queries, SPEC.hidden)
        found = backbone([said])
    assert found.shape == (1, 2, 8, 64)
    assert found.std() > 0.5
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


def test_a_batch_is_its_dialogues(backbone: Backbone) -> None:
    said = [dialogue(1, 4), dialogue(20, 2), dialogue(30, 3)]
    with torch.no_grad():
        joined = backbone(said)
        assert joined.shape == (3, 4, SPEC.queries, SPEC.hidden)
        for found, alone in zip(joined, said, strict=True):
            rounds = len(alone.rounds)
            torch.testing.assert_close(found[:rounds], backbone([alone])[0], atol=TOLERANCE, rtol=0)
            assert (found[rounds:] == 0).all()


@pytest.mark.parametrize("feedback", ["queries", "hidden"])
def test_a_state_depends_on_its_past_alone(feedback: str) -> None:
    backbone = lively(spec(feedback=feedback))
    rounds = shown(1, 4)
    with torch.no_grad():
        states = backbone([told(rounds)])[0]
        for changed in range(4):
            seen, fps, _ = rounds[changed]
            other = backbone([told([*rounds[:changed], (seen, fps, "another way"), *rounds[changed + 1 :]])])[0]
            torch.testing.assert_close(other[:changed], states[:changed], atol=TOLERANCE, rtol=0)
            assert ((other[changed:] - states[changed:]).abs().amax(dim=(1, 2)) > 1e-2).all()


def test_states_before_the_final_norm() -> None:
    """The norm of them is the default's states; words are still read behind it, and the queries still learn."""
    raw, said = lively(spec(final_norm=False, lm_head=True)), [dialogue(0, 2), dialogue(3, 1)]
    with torch.no_grad():
        states = raw(said)
        expected = lively(spec(lm_head=True))(said)
        assert (raw.model.language_model.norm(states) - expected).abs().max() <= 1e-5
        assert (states - expected).abs().max() > 0.1
        assert torch.equal(raw.caption_loss(said), lively(spec(lm_head=True)).caption_loss(said))
    raw(said).square().sum().backward()
    assert raw.query_embed.grad.abs().max() > 0
    assert all(weight.grad is None for name, weight in raw.named_parameters() if name != "query_embed")


def test_what_is_seen_and_when_tells(backbone: Backbone) -> None:
    rounds = shown(1, 2)
    with torch.no_grad():
        states = backbone([told(rounds)])[0]
        seen, _, action = rounds[1]
        mirrored = backbone([told([rounds[0], (seen[:, :, ::-1].copy(), 16.0, action)])])[0]
        slower = backbone([told([rounds[0], (seen[:4], 1.0, action)])])[0]
        faster = backbone([told([rounds[0], (seen[:4], 16.0, action)])])[0]
    assert (mirrored[1] - states[1]).abs().max() > 1e-2
    assert (slower[1] - faster[1]).abs().max() > 1e-2  # the same four frames, other times


def test_gradients_reach_the_queries_and_nothing_else(backbone: Backbone) -> None:
    backbone.zero_grad()
    scalar(backbone([dialogue(1, 2)])).backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.requires_grad] == ["query_embed"]
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is not None] == ["query_embed"]
    assert (backbone.query_embed.grad.abs().amax(dim=1) > 1e-3).all()


def test_the_gradient_is_the_slope() -> None:
    backbone = lively().double()
    said = [dialogue(1, 2)]
    scalar(backbone(said)).backward()
    way = torch.randn(backbone.query_embed.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    step = 1e-3  # the norms compute in float32
    with torch.no_grad():
        backbone.query_embed += step * way
        ahead = scalar(backbone(said))
        backbone.query_embed -= 2 * step * way
        slope = (ahead - scalar(backbone(said))) / (2 * step)
    assert slope.item() == pytest.approx((backbone.query_embed.grad * way).sum().item(), rel=5e-3)


def test_checkpointed_layers_change_no_gradient() -> None:
    plain, kept = lively(), lively()
    kept.checkpoint_layers()
    for one in (plain, kept):
        one.train()
        scalar(one([dialogue(1, 2), dialogue(7, 1)])).backward()
    torch.testing.assert_close(kept.query_embed.grad, plain.query_embed.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("on", "times"), [(True, 2), (False, 1)])
def test_checkpointed_layers_are_computed_twice(on: bool, times: int) -> None:
    backbone = lively().train()
    backbone.checkpoint_layers()
    backbone.checkpoint_layers(on)
    calls: list[int] = []
    backbone.model.language_model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    scalar(backbone([dialogue(1, 1)])).backward()
    assert len(calls) == times


def test_a_padded_batch_takes_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a mask, attention falls off the flash kernels (PyTorch's SDPA): dialogues are filled up behind, so that none is needed."""
    backbone, masks = lively(), []
    attend = torch.nn.functional.scaled_dot_product_attention

    def noted(*given: Any, **options: Any) -> Any:
        masks.append((options.get("attn_mask"), options.get("is_causal")))
        return attend(*given, **options)

    seen = backbone.look([r.sight for r in dialogue(1, 3).rounds + dialogue(2, 1).rounds])
    scripts = [turns(dialogue(1, 3), SPEC, backbone.tokenizer), turns(dialogue(2, 1), SPEC, backbone.tokenizer)]
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noted)
    backbone._heard(scripts, [seen[:3], seen[3:]])
    assert masks == [(None, True)] * SPEC.layers


def test_the_tower_keeps_no_activations_unless_it_learns(backbone: Backbone) -> None:
    sights = [dialogue(1, 1).rounds[0].sight]
    assert not backbone.look(sights)[0].requires_grad
    assert lively(train_all=True).look(sights)[0].requires_grad


def test_all_parameters_can_learn() -> None:
    backbone = lively(train_all=True)
    scalar(backbone([dialogue(1, 2)])).backward()
    without = {name for name, parameter in backbone.named_parameters() if parameter.grad is None}
    assert without == {"lm_head.weight"}
    backbone.train_only_queries()
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


def test_the_caption_loss_is_the_words_cross_entropy(backbone: Backbone) -> None:
    """Round by round by hand: the probability of each byte and of the turn's end, given all that stands before it."""
    said = [dialogue(1, 2), dialogue(5, 1)]
    losses = []
    with torch.no_grad():
        for one in said:
            script = turns(one, SPEC, backbone.tokenizer)
            hidden = backbone._heard([script], [backbone.look([r.sight for r in one.rounds])])[0]
            logprobs = backbone.lm_head(hidden).log_softmax(-1)
            begin = 0
            for turn in script:
                if turn.words.stop > turn.words.start:
                    losses += [-logprobs[begin + at - 1, turn.ids[at]] for at in range(turn.words.start, turn.words.stop + 1)]
                begin += len(turn.ids)
        assert len(losses) == sum(len(r.action) + 1 for one in said for r in one.rounds)
        torch.testing.assert_close(backbone.caption_loss(said), torch.stack(losses).mean(), atol=TOLERANCE, rtol=0)


def test_a_small_backbone_learns_to_caption() -> None:
    """What it sees decides the words: dark or bright, said of pictures that it must tell apart."""
    backbone = lively(train_all=True).train()
    said = [one_coloured(40, "dark"), one_coloured(220, "bright")]
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=3e-3)
    first = backbone.caption_loss(said).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss = backbone.caption_loss(said)
        loss.backward()
        optimizer.step()
    wrong = backbone.caption_loss([one_coloured(40, "bright"), one_coloured(220, "dark")]).item()
    assert first > 2.0
    assert loss.item() < 0.1
    assert wrong > 1.0  # it looks, and does not only know the words


def one_coloured(level: int, caption: str) -> Dialogue:
    """A dialogue of one picture."""
    import numpy as np

    return told([(np.full((1, 64, 64, 3), level, dtype=np.uint8), 16.0, caption)])


def test_without_a_head_nothing_is_captioned() -> None:
    with pytest.raises(ValueError, match="lm_head = true"):
        lively(spec(lm_head=False)).caption_loss([dialogue(1, 1)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_rotary_tables_stay_float32(dtype: Any) -> None:
    backbone = lively()
    before = {name: table.clone() for name, table in backbone.named_buffers()}
    assert len(before) >= 2
    backbone.to(dtype)
    for name, table in backbone.named_buffers():
        assert table.dtype == torch.float32
        assert torch.equal(table, before[name])


def test_bfloat16_is_near(backbone: Backbone) -> None:
    said = [dialogue(1, 2)]
    with torch.no_grad():
        exact = backbone(said)
        near = lively().bfloat16()(said).float()
    assert near.dtype == torch.float32
    assert ((near - exact).norm() / exact.norm()).item() < 5e-2


def test_qwens_7b_is_described_in_full() -> None:
    """The published vision_config leaves fields to defaults that transformers has changed: width 3584 and 4 tokens a second would be wrong."""
    config = qwen_config(SPECS["pan_14b"].backbone)
    vision, text = config.vision_config, config.text_config
    assert (vision.hidden_size, vision.tokens_per_second, vision.out_hidden_size, vision.depth, vision.num_heads) == (1280, 2, 3584, 32, 16)
    assert (vision.window_size, vision.intermediate_size, list(vision.fullatt_block_indexes)) == (112, 3420, [7, 15, 23, 31])
    assert (text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.num_key_value_heads) == (3584, 18944, 28, 4)
    assert (text.vocab_size, text.rms_norm_eps, text.rope_parameters["rope_theta"]) == (152064, 1e-6, 1e6)
    assert list(text.rope_parameters["mrope_section"]) == [16, 24, 24]
    assert text.sliding_window is None
    assert not config.tie_word_embeddings


def test_qwens_7b_has_its_parameters() -> None:
    """Source: Qwen2.5-VL-7B-Instruct's config.json: tower 0.677 B, language model 7.071 B, head 0.545 B."""
    with torch.device("meta"):
        backbone = Backbone(replace(SPECS["pan_14b"].backbone, lm_head=True))
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in (("visual", backbone.model.visual), ("text", backbone.model.language_model))}
    assert counts["visual"] / 1e9 == pytest.approx(0.677, abs=5e-4)
    assert counts["text"] / 1e9 == pytest.approx(7.071, abs=5e-4)
    assert backbone.lm_head.weight.numel() / 1e9 == pytest.approx(0.545, abs=5e-4)
    assert backbone.query_embed.shape == (256, 3584)


@pytest.mark.parametrize(
    ("changes", "dialogues", "said"),
    [
        ({}, [], "no dialogue"),
        ({"max_rounds": 2}, [dialogue(1, 1), dialogue(1, 3)], "a dialogue of 3 rounds, the model reads 2"),
        ({"max_positions": 60}, [dialogue(1, 2)], "the model reads 60"),
        ({"vocab": 258}, [dialogue(1, 1)], "vocabulary has 258"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], dialogues: Sequence[Dialogue], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        lively(spec(**changes))(dialogues)


def test_rounds_may_have_no_words(backbone: Backbone) -> None:
    said = dialogue(1, 1).rounds[0]
    with torch.no_grad():
        assert torch.isfinite(backbone([Dialogue((Round(said.sight, ""),))])).all()
