"""What is measured of a model that was trained on the block world, on stories whose first layouts no film of the training begins with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from training.evaluation.blockworld import Episode, Split, World

STORIES, ROUNDS, STEPS, GUIDANCE = 20, 10, 10, 2.0
#: Of the windows' comparison: what goes wrong goes wrong slowly, and a model of texts alone has no memory that ten rounds would fill.
LONG_ROUNDS = 20

WorldName = Literal["plain", "held_out", "named_once", "midway", "contact"]

Asked = Literal["windows", "texts", "long_texts", "pan", "long", "states"]
"""Of windows, over many rounds; of a model without state stream, and on as many stories as the long run; of one with it; of the long run; of states alone."""


def world(chunk_frames: int = 4, **what: Any) -> "World":
    """A world on the model's clock: an action is a chunk of four frames, one latent frame, by default."""
    from training.evaluation.block_model import ACTION_S
    from training.evaluation.blockworld import World

    return World(chunk_frames=chunk_frames, fps=chunk_frames / ACTION_S, **what)


#: Two blocks that no push brings together, twice (the second's films show no arrangement that a story to be judged begins with); the same, named by a story's
#: first words alone; the same, half-way where chunks of two latent frames meet; three blocks that shove one another.
WORLDS: Mapping[WorldName, "Callable[[], World]"] = {
    "plain": lambda: world(blocks=2, contact=False),
    "held_out": lambda: world(blocks=2, contact=False),
    "named_once": lambda: world(blocks=2, contact=False, named="once"),
    "midway": lambda: world(8, blocks=2, contact=False, lag=0.5),
    "contact": lambda: world(blocks=3, contact=True),
}


def measured(before: Path, model: Path, here: Any, asked: Asked, seed: int) -> dict[str, Any]:
    """Everything that is measured of a trained model, on stories whose first layouts no film of the training begins with; other stories for each seed.

    Args:
        before: the model in front of the second half, whose backbone is as it was taught.
        here: the world.
    """
    from training.evaluation.block_fidelity import copy_of_start, fidelity
    from training.evaluation.block_horizon import horizon
    from training.evaluation.blockworld import episodes
    from training.evaluation.predictors import predictor
    from training.model.checkpoint import open_model
    from training.sampling import Sampling

    glp, found = open_model(model).eval(), dict[str, Any]()
    if asked == "states":
        return {"states": states(glp, here), "states_before": states(open_model(before).eval(), here)}
    sampling, texts = Sampling(steps=STEPS, guidance=GUIDANCE, seed=seed), asked in ("windows", "texts", "long_texts")
    if texts:
        glp = deaf_to_states(glp)
    rounds, count = LONG_ROUNDS if asked == "windows" else ROUNDS, 3 * STORIES if asked in ("long", "long_texts") else STORIES
    stories = list(episodes(here, rounds, 100 + seed, count, "unseen"))
    seen = horizon(predictor(glp, here, sampling), stories)
    found["horizon"], found["begun"] = seen.to_dict(), begun(stories, seen.fidelity.rounds_S)
    found["copy"] = asdict(fidelity(copy_of_start(here), stories))
    if texts:
        return found
    if here.named == "always":
        found["planning"] = planned(glp, here, seed)
    found["told_nothing"] = asdict(fidelity(predictor(glp, here, sampling, actions_told=False), stories[:STORIES]))
    found["no_text"] = asdict(fidelity(predictor(without_text(glp), here, sampling), stories[:STORIES]))
    return found


def begun(stories: "Sequence[Episode]", rounds_S: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of the rounds that truly begin in an arrangement of each split: how many, and the share that was obeyed."""
    from training.evaluation.blockworld import SPLITS, arrangement, split_of

    found: dict[str, list[bool]] = {split: [] for split in SPLITS}
    for story, rounds in zip(stories, rounds_S, strict=True):
        here = story.world
        for k, told in enumerate(rounds):
            at = story.positions_TN2[k * here.chunk_frames + (here.lag_frames if k else 0)]
            found[split_of(arrangement(here, at))].append(told == "1")
    return {split: {"rounds": len(each), "obeyed": sum(each) / max(1, len(each))} for split, each in found.items()}


def deaf_to_states(glp: Any) -> Any:
    """The model without backbone: what it is after the first phase alone."""
    from training.model.glp import GLP

    return GLP(glp.spec, decoder=glp.decoder, vae=glp.vae, text=glp.text).eval()


def without_text(glp: Any) -> Any:
    """The model whose decoder hears no text: what it does, its state alone has told it."""
    hear = glp.encode_text
    glp.encode_text = lambda texts: hear([""] * len(texts))
    return glp


def planned(glp: Any, here: Any, seed: int, tasks: int = 10) -> dict[str, float]:
    """Share of the tasks that are solved by imagining each candidate, by the true simulator, and at random."""
    from training.evaluation.block_fidelity import simulator
    from training.evaluation.planning import guessing, imagining, success, task
    from training.evaluation.predictors import predictor
    from training.sampling import Sampling

    choosers = {
        "model": imagining(here, predictor(glp, here, Sampling(steps=STEPS, guidance=GUIDANCE, seed=seed))),
        "simulator": imagining(here, simulator(here)),
        "random": guessing(here, seed),
    }
    return {name: success((task(here, seed, number) for number in range(tasks)), choose) for name, choose in choosers.items()}


def states(glp: Any, here: "World", train: int = 500, test: int = 100) -> dict[str, Any]:
    """How much predicted states vary, and what a linear probe reads of the blocks' next places from them.

    It reads them twice: as float32 numbers, where nothing is too small for it, and in bfloat16, in which PAN's decoder would get them.
    """
    import numpy as np
    import torch

    from training.evaluation.block_fidelity import NEAR
    from training.evaluation.collapse import probe, spread

    with torch.no_grad():
        pairs = [predicted(glp, here, "train", train), predicted(glp, here, "unseen", test)]
    found, near = spread(np.concatenate([x for x, _ in pairs])), NEAR * here.step
    narrow = [(torch.from_numpy(x).bfloat16().float().numpy(), places) for x, places in pairs]
    return {"spread": asdict(found), "probe": asdict(probe(pairs[0], pairs[1], near)), "probe_bfloat16": asdict(probe(narrow[0], narrow[1], near))}


def predicted(glp: Any, here: "World", split: "Split", count: int) -> tuple[Any, Any]:
    """(states of each story's second round, the blocks' places at its end), from true films."""
    import numpy as np

    from training.evaluation.block_model import lessons
    from training.evaluation.blockworld import episodes

    told = lessons(here, glp.spec, count, 7, split, rounds=2)
    places = [story.positions_TN2[-1].flatten() for story in episodes(here, 2, 7, count, split)]
    return np.stack([glp.predict_states([each.dialogue])[0, -1].flatten().numpy() for each in told]), np.stack(places)
