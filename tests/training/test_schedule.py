"""The learning rate as a pure function of progress: warm-up, cosine, step and plateau."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from senet_ablate.spec.protocol import Recipe, Schedule
from senet_ablate.training.schedule import learning_rate, plateaus

PAPER_STEPS = (125, 200, 250)


def recipe(epochs: int, lr: float = 0.4, **schedule: Any) -> Recipe:
    return Recipe(epochs=epochs, batch_size=2, lr=lr, schedule=Schedule(**schedule))


def torch_rates(lr: float, steps: int, make: Any) -> list[float]:
    """What one of torch's own schedulers gives, step by step."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler: LRScheduler = make(optimiser)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("epochs", "per_epoch"), [(1, 7), (12, 5), (100, 1)])
def test_cosine_equals_torchs_cosine_at_every_step(epochs: int, per_epoch: int) -> None:
    steps = epochs * per_epoch
    reference = torch_rates(0.4, steps, lambda optimiser: CosineAnnealingLR(optimiser, T_max=steps))
    ours = [learning_rate(recipe(epochs), step / per_epoch) for step in range(steps)]
    assert ours == pytest.approx(reference, rel=1e-9, abs=1e-12)


def test_cosine_begins_where_the_warm_up_ends_and_then_equals_torchs() -> None:
    ours = [learning_rate(recipe(13, warmup_epochs=3), 3 + step / 4) for step in range(40)]
    reference = torch_rates(0.4, 40, lambda optimiser: CosineAnnealingLR(optimiser, T_max=40))
    assert ours == pytest.approx(reference, rel=1e-9, abs=1e-12)


def test_cosine_by_hand() -> None:
    ours = [learning_rate(recipe(6), progress) for progress in (0, 2, 3, 4, 6)]
    assert ours == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0], abs=1e-12)  # cos of 0, 60, 90, 120, 180 degrees


@pytest.mark.parametrize(
    "schedule",
    [{"kind": "cosine"}, {"kind": "step", "milestones": (8,)}, {"kind": "plateau"}],
    ids=lambda schedule: schedule["kind"],
)
def test_warm_up_rises_linearly_from_zero_to_the_peak(schedule: dict[str, Any]) -> None:
    rising = recipe(10, warmup_epochs=5, **schedule)
    ours = [learning_rate(rising, progress) for progress in (0, 0.5, 1, 2.5, 4.75, 5)]
    assert ours == pytest.approx([0, 0.04, 0.08, 0.2, 0.38, 0.4])


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert learning_rate(recipe(10), 0) == 0.4


def test_step_equals_torchs_over_the_papers_270_epochs() -> None:
    paper = recipe(270, kind="step", milestones=PAPER_STEPS)
    reference = torch_rates(0.4, 270, lambda optimiser: MultiStepLR(optimiser, list(PAPER_STEPS), gamma=0.1))
    assert [learning_rate(paper, epoch) for epoch in range(270)] == pytest.approx(reference)


@pytest.mark.parametrize(
    ("progress", "tenths"), [(0, 0), (124.999, 0), (125, 1), (199.999, 1), (200, 2), (249.999, 2), (250, 3), (269.9, 3)]
)
def test_step_drops_at_the_start_of_each_milestone(progress: float, tenths: int) -> None:
    paper = recipe(270, lr=0.6, kind="step", milestones=PAPER_STEPS)
    assert learning_rate(paper, progress) == pytest.approx(0.6 * 10.0**-tenths)


@pytest.mark.parametrize(
    ("losses", "drops"),
    [
        ([], 0),
        ([5, 4, 3, 2, 1], 0),
        ([1, 2], 0),
        ([1, 2, 2], 1),
        ([1, 1, 1], 1),  # equal is not better
        ([3, 4, 2, 4, 1, 4], 0),  # each best starts the wait again
        ([3, 4, 2, 4, 4], 1),
        ([1, 2, 2, 1, 1], 1),  # counted anew after the drop: 1 is the new count's first best
        ([1, 2, 2, 3, 3, 3], 2),
        ([1, 2, 2, 3, 3, 3, 4, 5, 6], 3),
        ([1] * 50, 3),  # at most three
    ],
)
def test_plateau_with_a_patience_of_two_by_hand(losses: list[float], drops: int) -> None:
    schedule = Schedule(kind="plateau", patience=2, drops=3)
    assert plateaus(schedule, losses) == drops
    flat = Recipe(epochs=90, batch_size=2, lr=0.6, schedule=schedule)
    assert learning_rate(flat, len(losses), losses) == pytest.approx(0.6 * 10.0**-drops)


def test_plateau_takes_factor_patience_and_number_of_drops_from_the_schedule() -> None:
    losses = [1.0] * 9
    patient = Schedule(kind="plateau", patience=8)
    assert [plateaus(patient, losses[:n]) for n in (8, 9)] == [0, 1]
    assert plateaus(Schedule(kind="plateau", patience=1, drops=2), losses) == 2
    halved = recipe(20, kind="plateau", patience=8, factor=0.5)
    assert learning_rate(halved, 9, losses) == pytest.approx(0.2)


@given(
    losses=st.lists(st.floats(0, 10), max_size=60),
    patience=st.integers(1, 6),
    drops=st.integers(1, 4),
)
def test_plateau_drops_singly_never_more_than_allowed_and_only_after_patience(
    losses: list[float], patience: int, drops: int
) -> None:
    schedule = Schedule(kind="plateau", patience=patience, drops=drops)
    counts = [plateaus(schedule, losses[:n]) for n in range(len(losses) + 1)]
    falls = [n for n in range(1, len(counts)) if counts[n] != counts[n - 1]]
    assert counts[0] == 0
    assert all(counts[n] == counts[n - 1] + 1 for n in falls)
    assert counts[-1] <= drops
    assert all(later - earlier > patience for earlier, later in zip([0, *falls], falls, strict=False))
    for fall in falls:  # each drop follows `patience` epochs, none of them better than the one before these
        before, *waited = losses[fall - patience - 1 : fall]
        assert min(waited) >= before


@given(progress=st.floats(0, 30), warmup=st.integers(0, 5))
def test_the_rate_never_leaves_zero_to_peak(progress: float, warmup: int) -> None:
    assert 0 <= learning_rate(recipe(30, warmup_epochs=warmup), progress) <= 0.4
