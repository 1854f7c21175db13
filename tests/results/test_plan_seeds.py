"""The plan is settled before the first run, kept in two files, and restored from either as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import PROTOCOL, R16, make_record, write_record
from sound import begun
from studies import CLAIMED, CLEAR, fill, put_plan

from senet_ablate.errors import UserError
from senet_ablate.results.arms import load_outcomes
from senet_ablate.results.merge import merge
from senet_ablate.results.plan import Selection, deviations, read_plan, settle_plan, unplanned, write_plan
from senet_ablate.results.records import StudyPlan
from senet_ablate.results.store import Study
from senet_ablate.results.verify import verify


def chosen(study: Study) -> Selection:
    pin = study.pin()
    assert pin is not None
    return Selection([CLAIMED], [CLAIMED], pin.protocol, study)


def file_of(study: Study) -> Path:
    return study.root / "plan.json"


def test_seeds_given_before_the_first_run_are_the_plan(study: Study) -> None:
    assert settle_plan(chosen(study), 5) == ""
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
    settle_plan(chosen(study), None)
    assert read_plan(study) is None
    settle_plan(chosen(study), 2)
    first = read_plan(study)
    settle_plan(chosen(study), 7)
    assert read_plan(study) == first


def test_a_study_with_runs_gets_no_plan(study: Study) -> None:
    write_record(study, make_record(R16, 0, 10.0))
    settle_plan(chosen(study), 5)
    assert read_plan(study) is None


# --- lost, and restored ---


@pytest.fixture
def under_way(study: Study) -> Study:
    """A study with a plan of three seeds each, and one run."""
    settle_plan(chosen(study), 3)
    write_record(study, make_record(R16, 0, 10.0))
    return study


def test_a_lost_plan_is_restored_as_it_was_whatever_seeds_are_given(under_way: Study) -> None:
    whole, plan = file_of(under_way).read_bytes(), read_plan(under_way)
    assert plan is not None
    for seeds in (3, 7, None):
        file_of(under_way).unlink()
        assert read_plan(under_way) == plan, "also for who only reads"
        restored = settle_plan(chosen(under_way), seeds)
        assert str(file_of(under_way)) in restored
        assert plan.digest in restored
        assert file_of(under_way).read_bytes() == whole
        assert settle_plan(chosen(under_way), seeds) == ""


def test_a_plan_changed_after_the_first_run_is_refused_and_named(under_way: Study) -> None:
    plan = read_plan(under_way)
    assert plan is not None
    changed = (
        {"seeds": ({"se-r16": 1},)},
        {"rules": plan.rules.model_copy(update={"margin_rho": 0.5})},
        {"written": "2019-12-31"},
        {"claims": {}},
        {"basis": "another"},
    )
    for change in changed:
        file_of(under_way).write_text(plan.model_copy(update=change).model_dump_json())
        uses: tuple[Callable[[], object], ...] = (
            lambda: read_plan(under_way),
            lambda: settle_plan(chosen(under_way), 3),
            lambda: write_plan(under_way, plan),
        )
        for use in uses:
            with pytest.raises(UserError, match="not the plan by which the study was begun") as caught:
                use()
            assert str(file_of(under_way)) in str(caught.value)
        assert any(str(file_of(under_way)) in problem for problem in verify(under_way).problems)
    file_of(under_way).unlink()  # as the message says
    assert settle_plan(chosen(under_way), 3)
    assert read_plan(under_way) == plan


def test_before_the_first_run_a_removed_plan_is_removed(study: Study) -> None:
    settle_plan(chosen(study), 3)
    file_of(study).unlink()
    assert read_plan(study) is None
    settle_plan(chosen(study), None)
    write_record(study, make_record(R16, 0, 10.0))
    assert read_plan(study) is None, "no run was made by it"


def test_a_lost_study_file_takes_the_plan_from_its_own_file_again(under_way: Study) -> None:
    plan = read_plan(under_way)
    (under_way.root / "study.json").unlink()
    begun(under_way)
    settle_plan(chosen(under_way), 3)
    file_of(under_way).unlink()
    assert read_plan(under_way) == plan


def test_another_driver_that_begins_leaves_the_plan(study: Study) -> None:
    settle_plan(chosen(study), 3)
    plan = read_plan(study)
    begun(study)
    write_record(study, make_record(R16, 0, 10.0))
    file_of(study).unlink()
    assert read_plan(study) == plan


@pytest.mark.parametrize("behind", ["plan.json", "study.json"])
def test_an_added_look_of_which_one_file_does_not_know_yet_counts(under_way: Study, behind: str) -> None:
    """Whoever wrote it was killed between the two files, or another driver put an earlier study.json back."""
    path = under_way.root / behind
    before, plan = path.read_bytes(), read_plan(under_way)
    assert plan is not None
    more = plan.model_copy(update={"seeds": (*plan.seeds, {"se-r4": 6, "se-r16": 6, "plain": 6})})
    write_plan(under_way, more)
    path.write_bytes(before)
    assert read_plan(under_way) == more
    settle_plan(chosen(under_way), None)
    assert StudyPlan.model_validate_json(file_of(under_way).read_bytes()) == more
    file_of(under_way).unlink()
    assert read_plan(under_way) == more


def test_a_study_of_before_has_its_plan_in_its_file_alone_until_it_gets_more_runs(study: Study) -> None:
    without = (study.root / "study.json").read_bytes()
    assert b'"plan"' not in without
    plan = put_plan(study, 3)
    write_record(study, make_record(R16, 0, 10.0))
    assert read_plan(study) == plan
    assert (study.root / "study.json").read_bytes() == without
    settle_plan(chosen(study), None)
    file_of(study).unlink()
    assert read_plan(study) == plan


def test_a_plan_that_is_lost_at_its_source_is_merged(under_way: Study, tmp_path: Path) -> None:
    plan = read_plan(under_way)
    file_of(under_way).unlink()
    new = Study(tmp_path / "new" / "joined")
    merge([under_way.root], new)
    assert read_plan(new) == plan
    assert new.pinned().protocol == PROTOCOL
