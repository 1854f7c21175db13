"""The plan file: written before the runs, kept by the study, and held against what was run."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import PLAIN, PROTOCOL, R4, R16, make_record
from studies import CLAIMED, CLEAR, better, claim, claimed, fill, put_plan

from senet_ablate.analysis.study import assess
from senet_ablate.errors import UserError
from senet_ablate.results.arms import Outcomes, load_outcomes
from senet_ablate.results.plan import claims_digest, default_plan, deviations, read_plan, unplanned, write_plan
from senet_ablate.results.records import StudyPlan
from senet_ablate.results.store import Study
from senet_ablate.spec.ablation import Arm
from senet_ablate.spec.claims import LOOK_SHARE, Rules

PLAN = StudyPlan(
    written="2020-01-01T00:00:00+00:00",
    claims=claims_digest([CLAIMED]),
    rules=Rules(margin_rho=0.3, looks=2),
    seeds=({"se-r4": 3, "se-r16": 4, "plain": 5},),
    basis="a guess",
)
AGAIN = ({"se-r4": 3, "se-r16": 4, "plain": 5}, {"se-r4": 6, "se-r16": 4, "plain": 9})


def outcomes(study: Study) -> Outcomes:
    pin = study.pin()
    assert pin is not None
    return load_outcomes(study, pin)


def told(study: Study) -> list[str]:
    return deviations(read_plan(study) or default_plan([CLAIMED], PROTOCOL), outcomes(study), [CLAIMED])


# --- the file ---


def test_a_plan_is_read_as_it_was_written(study: Study) -> None:
    assert read_plan(study) is None
    write_plan(study, PLAN)
    assert (study.root / "plan.json").is_file()
    assert read_plan(study) == PLAN
    assert read_plan(Study(study.root.with_name("another"))) is None


def test_before_the_first_run_a_plan_may_be_replaced_by_any_other(study: Study) -> None:
    write_plan(study, PLAN)
    other = PLAN.model_copy(update={"rules": Rules(), "seeds": ({"plain": 2},)})
    write_plan(study, other)
    assert read_plan(study) == other


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rules": Rules(margin_rho=0.2, looks=2), "seeds": AGAIN},
        {"rules": Rules(margin_rho=0.3, looks=3), "seeds": AGAIN},
        {"seeds": ({"se-r4": 4, "se-r16": 4, "plain": 5}, AGAIN[1])},
        {"seeds": (*AGAIN, AGAIN[1])},
        {"seeds": (AGAIN[1],)},
        {"seeds": ()},
    ],
    ids=["the same", "other margin", "more looks declared", "earlier look", "two looks", "in its place", "none"],
)
def test_a_study_with_runs_refuses_a_plan_that_is_not_its_old_one_with_one_more_look(
    changes: dict[str, Any], study: Study
) -> None:
    write_plan(study, PLAN)
    study.run(make_record(R4, 0).run_id).path.mkdir()  # begun is enough: a result may have been seen
    with pytest.raises(UserError, match="plan is made before the first run") as caught:
        write_plan(study, PLAN.model_copy(update=changes))
    message = str(caught.value)
    assert all(word in message for word in (str(study.root / "plan.json"), "'first'", "--extend", "--study"))
    assert read_plan(study) == PLAN, "the old plan stays"


def test_a_study_with_runs_takes_one_more_look(study: Study) -> None:
    write_plan(study, PLAN)
    fill(study, CLEAR)
    more = PLAN.model_copy(update={"seeds": AGAIN})
    write_plan(study, more)
    assert read_plan(study) == more
    assert more.count(Arm(variant=PLAIN)) == 9


def test_a_study_with_runs_and_no_plan_file_takes_none(full: Study) -> None:
    with pytest.raises(UserError, match="has runs"):
        write_plan(full, PLAN)
    assert read_plan(full) is None


@pytest.mark.parametrize(
    "content",
    ["", "no JSON", "{}", '{"claims": {}, "seeds": [{}], "rule": {}}', '{"claims": {}, "seeds": [{"plain": 2.5}]}'],
    ids=["empty", "no JSON", "no seeds", "unknown key", "half a seed"],
)
def test_a_damaged_file_is_an_error_that_names_it(content: str, study: Study) -> None:
    path = study.root / "plan.json"
    path.write_text(content)
    for use in (lambda: read_plan(study), lambda: assess([CLAIMED], study), lambda: write_plan(study, PLAN)):
        with pytest.raises(UserError, match="damaged: ") as caught:
            use()
        assert str(path) in str(caught.value)


def test_a_file_of_a_later_format_is_refused(study: Study) -> None:
    (study.root / "plan.json").write_text(PLAN.model_dump_json().replace('"schema_version":1', '"schema_version":2'))
    with pytest.raises(UserError, match="schema_version"):
        read_plan(study)


# --- the plan ---


def test_without_a_file_the_protocols_seeds_and_the_usual_rules_are_the_plan(study: Study) -> None:
    plan = default_plan([CLAIMED], PROTOCOL)
    assert plan.seeds == ({"se-r4": 3, "se-r16": 3, "plain": 3},)
    assert plan.rules == Rules()
    assert not plan.written
    assessment = assess([CLAIMED], study)
    assert assessment.plan == plan
    assert assessment.rules == Rules()


def test_an_arm_is_planned_at_the_last_look_under_its_own_series_of_seeds() -> None:
    plan = StudyPlan(claims={}, seeds=({"se-r16": 9, "plain": 2}, {"se-r16": 5, "se-r16@1000": 7}))
    arm = Arm(variant=R16)
    assert plan.count(arm) == 5
    assert plan.count(arm.model_copy(update={"first_seed": 1000})) == 7
    assert plan.count(Arm(variant=PLAIN)) == 0


def test_a_plans_digest_follows_everything_in_it() -> None:
    changes: list[dict[str, Any]] = [
        {"written": "2020-01-01T00:00:01+00:00"},
        {"claims": {"ratio": "0"}},
        {"rules": Rules(margin_rho=0.31, looks=2)},
        {"seeds": AGAIN},
        {"seeds": ({"se-r4": 3, "se-r16": 4, "plain": 6},)},
        {"basis": "another guess"},
    ]
    found = {PLAN.digest, *(PLAN.model_copy(update=change).digest for change in changes)}
    assert len(found) == 1 + len(changes)
    assert PLAN.model_copy().digest == PLAN.digest


def test_a_plans_digest_survives_the_file_and_is_shown_in_a_report(study: Study) -> None:
    write_plan(study, PLAN)
    read = read_plan(study)
    assert read is not None
    assert read.digest == PLAN.digest == assess([CLAIMED], study).plan.digest


# --- the fingerprint of the claims ---


@pytest.mark.parametrize(
    "claims",
    [
        (),
        CLAIMED.claims[:2],
        (claim("gains", better("r16", "plain")), *CLAIMED.claims[1:]),
        (claim("gain", better("plain", "r16")), *CLAIMED.claims[1:]),
        (claim("gain", better("r4", "plain")), *CLAIMED.claims[1:]),
        (claim("gain", better("r16", "plain"), secondary=True), *CLAIMED.claims[1:]),
        (claim("gain", better("r16", "plain"), better("r4", "plain")), *CLAIMED.claims[1:]),
        (CLAIMED.claims[0].model_copy(update={"statement": "Another sentence"}), *CLAIMED.claims[1:]),
    ],
    ids=["none", "one less", "name", "reversed", "another arm", "secondary", "one more atom", "sentence"],
)
def test_the_claims_fingerprint_changes_with_any_claim(claims: Any) -> None:
    assert claims_digest([claimed(*claims)]) != claims_digest([CLAIMED])


def test_the_claims_fingerprint_knows_the_table_but_neither_order_nor_what_is_no_claim() -> None:
    other = CLAIMED.model_copy(update={"slug": "other"})
    assert claims_digest([CLAIMED, other]) == claims_digest([other, CLAIMED])
    assert claims_digest([CLAIMED]) != claims_digest([other])
    assert claims_digest([claimed(*reversed(CLAIMED.claims))]) == claims_digest([CLAIMED])
    assert claims_digest([CLAIMED.model_copy(update={"title": "Another title"})]) == claims_digest([CLAIMED])


# --- deviations ---


def test_runs_as_planned_deviate_in_nothing(study: Study) -> None:
    put_plan(study, 3)
    fill(study, CLEAR)
    assert told(study) == []


def test_a_missing_plan_is_told_and_tables_that_nobody_planned_are_not(study: Study) -> None:
    (only,) = told(study)
    assert only == "no plan file: 3 seeds of each network, as the protocol says"
    fill(study, {R4: (10.0, 11.0)})
    assert told(study) == [only, "se-r4: 2 of 3 planned runs are there"]


def test_planned_runs_that_are_missing_are_told_by_network(study: Study) -> None:
    put_plan(study, {R4: 3, R16: 5, PLAIN: 2})
    assert told(study) == [
        "se-r4: 0 of 3 planned runs are there",
        "se-r16: 0 of 5 planned runs are there",
        "plain: 0 of 2 planned runs are there",
    ]
    fill(study, {R4: (10.0, 11.0, 12.0), R16: (11.0, None, 11.5), PLAIN: (50.0, 51.0)})
    assert told(study) == ["se-r16: 3 of 5 planned runs are there"], "a run that diverged was run"


def test_runs_begun_before_the_plan_was_written_are_told(study: Study) -> None:
    put_plan(study, 3, written="2020-06-01T12:00:00+00:00")
    fill(study, {R4: CLEAR[R4], R16: CLEAR[R16]}, started="2020-06-01T12:00:00+00:00")
    fill(study, {PLAIN: CLEAR[PLAIN]}, started="2020-06-01T11:59:59.900000+00:00")
    assert told(study) == ["3 runs began before the plan was written (2020-06-01T12:00:00+00:00), by their clocks"]


def test_other_claims_than_the_plans_are_told(study: Study) -> None:
    put_plan(study, 3, claims=claims_digest([claimed(claim("gain", better("plain", "r16")))]))
    fill(study, CLEAR)
    assert told(study) == ["the declared findings are not those of the plan: ratio"]


EXTENDED = CLEAR | {R16: (9.5, 10.5, 10.0, 11.5, 12.0)}


@pytest.mark.parametrize("planned", [True, False], ids=["plan file", "protocol's seeds"])
def test_more_seeds_than_planned_are_told_and_judged_at_the_levels_of_five_looks(planned: bool, study: Study) -> None:
    if planned:
        put_plan(study, 3)
    fill(study, EXTENDED)
    assert told(study)[-1] == "unplanned extension, judged at the levels of five analyses: se-r16 5 for 3"
    assessment = assess([CLAIMED], study)
    assert assessment.rules.looks == 5
    # Two findings in the family share what one of five looks may spend; LOOK_SHARE is Pocock's, by simulation.
    assert [finding.level for finding in assessment.all_findings] == pytest.approx([0.05 * 0.31 / 2] * 3)
    assert [arm.slug for arm in unplanned(assessment.plan, outcomes(study))] == ["se-r16"]


def test_runs_of_networks_that_no_table_declares_are_no_extension(study: Study) -> None:
    put_plan(study, 3)
    fill(study, CLEAR)
    fill(study, {R16: (10.0, 11.0)}, first_seed=1000)
    assert told(study) == []
    assert assess([CLAIMED], study).rules.looks == 1


def test_declared_looks_are_judged_at_their_level_and_are_no_deviation(study: Study) -> None:
    put_plan(study, 3, 5, rules=Rules(looks=2))
    fill(study, {variant: (*errors, errors[0], errors[1]) for variant, errors in CLEAR.items()})
    assert told(study) == []
    levels = [finding.level for finding in assess([CLAIMED], study).all_findings]
    assert levels == pytest.approx([0.05 * 0.6 / 2] * 3)


def test_more_looks_than_declared_are_told_and_judged_at_the_levels_of_five(study: Study) -> None:
    put_plan(study, 2, 3, rules=Rules(looks=1))
    fill(study, CLEAR)
    assert told(study) == ["interim analysis 2 of a plan for 1, judged at the levels of five"]
    assessment = assess([CLAIMED], study)
    assert assessment.rules.looks == 5
    assert assessment.rules.alpha_per_look == pytest.approx(0.05 * LOOK_SHARE[5])
