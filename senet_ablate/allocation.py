"""Which seeds to buy: from a start of a few each, add what brings the most findings for its cost until the budget ends.

Chosen before the first run, this beats every rule tried that looks at results and pays for looking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from senet_ablate.errors import UserError
from senet_ablate.prospects import Prospects
from senet_ablate.spec.ablation import SEED_SERIES, Arm

START, SHORT_START, WILD_START = 3, 2, 5
STEP = 0.15
"""Seeds are added in steps of this share of what an arm has, at least one."""


def is_wild(arm: Arm) -> bool:
    """Whether an arm changes the gate or the squeeze so that its runs may scatter more than others."""
    se = arm.variant.se
    return se is not None and (se.gate in ("relu", "tanh") or se.squeeze == "none")


def allocate(
    prospects: Prospects,
    cost: Mapping[Arm, float],
    budget: float,
    start: Mapping[Arm, int] | None = None,
    tell: Callable[[float], None] = lambda share: None,
) -> dict[Arm, int]:
    """Seeds for each arm that cost at most `budget`, in the unit of `cost` (of one run of each arm).

    With `start`, which is paid for already, the budget is for what is added to it.

    Raises:
        UserError: the budget does not reach for two seeds of each arm.
    """

    def total(seeds: Mapping[Arm, int]) -> float:
        return sum(cost[arm] * n for arm, n in seeds.items())

    if start is not None:
        return _grow(prospects, cost, budget + total(start), dict(start), tell)
    starts = (
        {arm: WILD_START if is_wild(arm) else START for arm in prospects.arms},
        dict.fromkeys(prospects.arms, START),
        dict.fromkeys(prospects.arms, SHORT_START),
    )
    seeds = next((seeds for seeds in starts if total(seeds) <= budget), None)
    if seeds is None:
        raise UserError(
            f"the budget reaches for {budget / total(starts[-1]):.0%} of two seeds of each of {len(prospects.arms)} "
            "networks; give more, or name fewer tables"
        )
    return _grow(prospects, cost, budget, seeds, tell)


def _grow(
    prospects: Prospects,
    cost: Mapping[Arm, float],
    budget: float,
    seeds: dict[Arm, int],
    tell: Callable[[float], None],
) -> dict[Arm, int]:
    """Take the step that promises most for its cost, until none fits or promises anything."""

    def total(seeds: Mapping[Arm, int]) -> float:
        return sum(cost[arm] * n for arm, n in seeds.items())

    while True:
        before = prospects.expected(seeds)
        best, best_rate = None, 0.0
        for step in _steps(prospects, seeds):
            price = sum(cost[arm] * more for arm, more in step.items())
            if total(seeds) + price > budget:
                continue
            after = {arm: n + step.get(arm, 0) for arm, n in seeds.items()}
            if max(after.values()) > SEED_SERIES:  # the next seed is another arm's
                continue
            rate = (prospects.expected(after) - before) / price
            if rate > best_rate:
                best, best_rate = after, rate
        if best is None:
            return seeds
        seeds = best
        tell(total(seeds) / budget)


def _steps(prospects: Prospects, seeds: Mapping[Arm, int]) -> Iterator[dict[Arm, int]]:
    """More seeds of one arm, of all arms of a finding, or of those that only few findings share."""
    shared = {arm: sum(arm in needed for needed in prospects.finding_arms) for arm in prospects.arms}
    common = sorted(shared, key=lambda arm: -shared[arm])[:2]  # the references: SE and the network without

    def more(some: tuple[Arm, ...]) -> dict[Arm, int]:
        return {arm: max(1, round(STEP * seeds[arm])) for arm in some}

    for arm in prospects.arms:
        yield more((arm,))
    for needed in prospects.finding_arms:
        yield more(needed)
        rest = tuple(arm for arm in needed if arm not in common)
        if rest:
            yield more(rest)
