"""Seeds that are given before the first run are the plan."""

from __future__ import annotations

from helpers import R16, make_record, write_record
from studies import CLAIMED, CLEAR, fill

from senet_ablate.results.arms import load_outcomes
from senet_ablate.results.plan import Selection, deviations, plan_seeds, read_plan, unplanned
from senet_ablate.results.store import Study


def chosen(study: Study) -> Selection:
    pin = study.pin()
    assert pin is not None
    return Selection([CLAIMED], [CLAIMED], pin.protocol, study)


def test_seeds_given_before_the_first_run_are_the_plan(study: Study) -> None:
    plan_seeds(chosen(study), 5)
    plan = read_plan(study)
    assert plan is not None
    assert plan.seeds == ({"se-r4": 5, "se-r16": 5, "plain": 5},)
    fill(
        study,
        {variant: (*errors, 10.0, 11.0) for variant, errors in CLEAR.items()},
        started=f"{plan.written}T00:00:01+00:00",
    )
    pin = study.pin()
    assert pin is not None
    outcomes = load_outcomes(study, pin)
    assert unplanned(plan, outcomes) == []
    assert deviations(plan, outcomes, [CLAIMED]) == []


def test_seeds_given_later_or_not_at_all_or_beside_a_plan_change_nothing(study: Study) -> None:
    plan_seeds(chosen(study), None)
    assert read_plan(study) is None
    plan_seeds(chosen(study), 2)
    first = read_plan(study)
    plan_seeds(chosen(study), 7)
    assert read_plan(study) == first


def test_a_study_with_runs_gets_no_plan(study: Study) -> None:
    write_record(study, make_record(R16, 0, 10.0))
    plan_seeds(chosen(study), 5)
    assert read_plan(study) is None
