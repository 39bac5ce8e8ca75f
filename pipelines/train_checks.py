"""Train checks: settings of a training that are at odds with one another, or with the model, found before anything starts."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.train_recipe import TrainRecipe
    from training.model.spec import ModelSpec
    from training.phases import Phase


def at_odds(recipe: "TrainRecipe") -> list[str]:
    """What of a recipe's settings cannot be had together, one sentence each."""
    loop, faults = recipe.loop, miscounted(recipe)
    if loop.patience and not loop.validate_every:
        faults.append(f"loop.patience {loop.patience} counts validations, and loop.validate_every 0 makes none; set one of them otherwise")
    return faults


def miscounted(recipe: "TrainRecipe") -> list[str]:
    """What is wrong with the number of workers, one sentence each.

    Between `least` and `most` Ray Train takes any number that the cluster has room for; a mesh of shards or sequences takes multiples alone.
    """
    workers, parallel = recipe.workers, recipe.parallel
    each, most = parallel.shard * parallel.sequence, workers.most if workers.most is not None else workers.least
    faults = []
    if most < workers.least:
        faults.append(f"workers.most {most} is below workers.least {workers.least}")
    if workers.least % each:
        faults.append(f"workers.least {workers.least} is no multiple of parallel.shard x parallel.sequence, {each}")
    elif parallel.replicate is not None and parallel.replicate * each != workers.least:
        product = f"parallel.replicate x parallel.shard x parallel.sequence, {parallel.replicate * each}"
        faults.append(
            f"workers.least {workers.least} is not {product}; make them equal, or leave parallel.replicate out for as many copies as there is room for"
        )
    if most > workers.least and (each > 1 or parallel.replicate is not None):
        spread = f"parallel.shard x parallel.sequence is {each}" if each > 1 else f"parallel.replicate is {parallel.replicate}"
        faults.append(
            f"workers.most {most} is above workers.least {workers.least} while {spread}: Ray may start any number of workers between the two, and most of "
            "them cannot hold this mesh; leave workers.most out for a fixed number, or have copies alone: parallel.shard and parallel.sequence 1, no replicate"
        )
    return faults


def lonely(recipe: "TrainRecipe", spec: "ModelSpec", phase: "Phase") -> None:
    """Refuses several workers where the model's phase works on one alone.

    Raises:
        ValueError: the backbone feeds hidden states back, round by round, which its sharded form cannot.
    """
    most = max(recipe.workers.least, recipe.workers.most or 0)
    if spec.backbone.feedback == "hidden" and "backbone" in phase.runs and most > 1:
        raise ValueError(
            f"model {spec.name} feeds its backbone's hidden states back (backbone.feedback is 'hidden'), and phase {phase.name!r} of such a model works on one "
            f"worker alone, not on {most}: its rounds would use weights that are sharded away between them; set workers.least=1, or begin with a model of "
            "backbone.feedback 'queries'"
        )
