"""The learning rate as a pure function of progress, so that a resumed run has the rate it would have had."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

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


class ProgressLR(LRScheduler):
    """Sets the rate before each optimiser step by `learning_rate`, so it depends on the progress alone.

    Args:
        optimizer: whose rate is set.
        recipe: peak rate, epochs and schedule.
        steps_per_epoch: optimiser steps of an epoch.
        val_losses: validation loss of each epoch so far; read anew at each step, for the plateau rule.
    """

    def __init__(
        self, optimizer: Optimizer, recipe: Recipe, steps_per_epoch: int, val_losses: Sequence[float] = ()
    ) -> None:
        self.recipe, self.steps_per_epoch, self.val_losses = recipe, steps_per_epoch, val_losses
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Any]:
        """The rate of the next optimiser step, times the `share` that a group of parameters may have of it."""
        epoch, step = divmod(self.last_epoch, self.steps_per_epoch)
        progress = min(epoch + step / self.steps_per_epoch, self.recipe.epochs)  # a cosine would rise again
        rate = learning_rate(self.recipe, progress, self.val_losses)
        return [rate * group.get("share", 1.0) for group in self.optimizer.param_groups]

    def refresh(self) -> None:
        """Set the rate again, once the validation loss of the last epoch is known."""
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, so that a checkpoint can be read without executing anything."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count, "_last_lr": self._last_lr}
