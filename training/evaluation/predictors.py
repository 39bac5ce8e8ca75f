"""Predictors: a world model as the evaluation wants it: the first image and the actions in, the film out."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.evaluation.block_fidelity import Predictor
from training.evaluation.blockworld import World
from training.evaluation.planning import candidates
from training.model.glp import GLP
from training.model.plain import must
from training.rollout import Session
from training.sampling import Sampling


def predictor(model: GLP, world: World, sampling: Sampling, actions_told: bool = True) -> Predictor:
    """A model's closed-loop rollout: what it films in one round is what it sees in the next.

    Args:
        model: in evaluation mode.
        world: whose films are asked for.
        sampling: how chunks are denoised; its seed makes the film.
        actions_told: False gives the model empty texts in place of the actions, which is a comparison of its own.

    Raises:
        ValueError: the model's chunk or picture is not the world's, or it hears actions through texts alone that are too short to tell them apart.
    """
    spec = model.spec
    must(spec.chunks.chunk_frames == world.chunk_frames, f"{spec.name}: a chunk of {spec.chunks.chunk_frames} frames, the world's is {world.chunk_frames}")
    must((spec.height, spec.width) == (world.size,) * 2, f"{spec.name}: pictures of {spec.width}x{spec.height} px, the world's are {world.size} a side")
    told = [str(action) for action in candidates(world)]
    heard = {tuple(model.text.ids(text)) for text in told} if actions_told and model.backbone is None else set(told)
    must(len(heard) == len(told), f"{spec.name}: {spec.text.tokens} text tokens cannot tell {told[0]!r} from {told[1]!r}; give text and decoder more tokens")

    def predict(image_HWC: npt.NDArray[np.uint8], actions: Sequence[str]) -> npt.NDArray[np.uint8]:
        session = Session(model, sampling)
        return np.concatenate([session.start(image_HWC), *(session.step(action if actions_told else "") for action in actions)])

    return predict
