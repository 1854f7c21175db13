"""The learning rate as a pure function of progress, so that a resumed run has the rate it would have had."""

from __future__ import annotations

import math
from collections.abc import Sequence

from senet_ablate.spec.protocol import Recipe, Schedule


def learning_rate(recipe: Recipe, progress: float, val_losses: Sequence[float] = ()) -> float:
    """The rate at `progress` epochs (2.5: half through the third).

    Args:
        recipe: peak rate, epochs and schedule.
        progress: epochs done, with fraction.
        val_losses: validation loss of each epoch so far, for the plateau rule.
    """
    schedule = recipe.schedule
    if progress < schedule.warmup_epochs:
        return recipe.lr * progress / schedule.warmup_epochs
    match schedule.kind:
        case "cosine":
            share = (progress - schedule.warmup_epochs) / (recipe.epochs - schedule.warmup_epochs)
            return recipe.lr * (1 + math.cos(math.pi * share)) / 2
        case "step":
            return recipe.lr * schedule.factor ** sum(progress >= epoch for epoch in schedule.milestones)
        case "plateau":
            return recipe.lr * schedule.factor ** plateaus(schedule, val_losses)


def plateaus(schedule: Schedule, val_losses: Sequence[float]) -> int:
    """How often the loss went `patience` epochs without a new best, counted anew after each drop; at most `drops`."""
    best, waited, count = math.inf, 0, 0
    for loss in val_losses:
        if loss < best:
            best, waited = loss, 0
        else:
            waited += 1
        if waited == schedule.patience:
            best, waited, count = math.inf, 0, count + 1
    return min(count, schedule.drops)
