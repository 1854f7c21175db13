"""A whole study judged: verdicts on made errors, looks, departures that bar a verdict, what is half-way or beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import ABLATION, FACTS, PLAIN, PROTOCOL, R4, R16, make_record, markdown_cells, write_record
from studies import (
    ABLATIONS,
    ALIKE,
    CLAIMED,
    CLEAR,
    better,
    claim,
    claimed,
    fill,
    put_plan,
    same,
)

from senet_ablate.analysis.evidence import gather
from senet_ablate.analysis.study import Assessment, assess
from senet_ablate.analysis.verdicts import FindingVerdict
from senet_ablate.cli.options import choose
from senet_ablate.report.findings import reason_in_words
from senet_ablate.report.findings import to_markdown as findings_page
from senet_ablate.report.tables import build_table, to_markdown
from senet_ablate.results.plan import declared_tables
from senet_ablate.results.store import Study
from senet_ablate.spec.ablation import Arm
from senet_ablate.spec.claims import Retains, Rules
from senet_ablate.spec.loading import load_ablations, load_protocol
from senet_ablate.spec.network import SEConfig, Variant

REVERSED = claimed(
    claim("gain", better("plain", "r16")),
    claim("same", same("r16", "plain")),
    claim("share", Retains(kind="retains", arm="r4", share=0.9)),
)


def by_id(assessment: Assessment) -> dict[str, FindingVerdict]:
    return {finding.claim.id: finding for finding in assessment.all_findings}


def verdicts(assessment: Assessment) -> dict[str, str]:
    return {name: finding.verdict for name, finding in by_id(assessment).items()}


# --- verdicts on made errors ---


def test_a_clear_effect_is_reproduced(study: Study) -> None:
    fill(study, CLEAR)
    assessment = assess([CLAIMED], study)
    assert verdicts(assessment) == dict.fromkeys(("gain", "same", "beside"), "reproduced")
    (atom,) = by_id(assessment)["gain"].atoms
    assert atom.estimate == pytest.approx(50 - 10)
    assert atom.low is not None
    assert atom.high is not None
    assert 0 < atom.low < 40 < atom.high
    assert atom.n == (3, 3)


def test_the_reverse_of_a_clear_effect_is_contradicted_with_the_reason(study: Study) -> None:
    fill(study, CLEAR | {R4: (48.0, 47.0, 49.0)})
    found = by_id(assess([REVERSED], study))
    assert {finding.verdict for finding in found.values()} == {"contradicted"}
    assert reason_in_words(found["gain"]) == "reversed"
    assert reason_in_words(found["same"]) == "too different: by more than 25% of the SE gain"
    assert reason_in_words(found["share"]) == "keeps less than 90% of the gain"


def test_noise_resolves_nothing(study: Study) -> None:
    fill(study, ALIKE)
    found = by_id(assess([CLAIMED], study))
    assert {finding.verdict for finding in found.values()} == {"not resolved"}
    assert reason_in_words(found["gain"]) == "within the noise"
    assert reason_in_words(found["same"]) == "no SE gain to measure against"


# --- what is half-way ---


def test_a_half_way_study_says_what_is_not_run_and_judges_the_rest(study: Study) -> None:
    fill(study, {R16: CLEAR[R16], PLAIN: CLEAR[PLAIN]})
    found = by_id(assess([CLAIMED], study))
    assert found["gain"].verdict == "reproduced"
    assert (found["same"].verdict, reason_in_words(found["same"])) == ("not resolved", "not run: se-r4")
    assert (found["beside"].verdict, reason_in_words(found["beside"])) == ("not resolved", "not run: se-r4")


def test_one_seed_gives_an_estimate_and_no_verdict(study: Study) -> None:
    fill(study, {R16: CLEAR[R16], PLAIN: CLEAR[PLAIN], R4: (10.0,)})
    found = by_id(assess([CLAIMED], study))
    assert (found["beside"].verdict, reason_in_words(found["beside"])) == ("not resolved", "one seed: se-r4")
    assert found["beside"].atoms[0].estimate == pytest.approx(50 - 10)
    assert found["gain"].verdict == "reproduced"


def test_a_study_without_runs_has_findings_without_numbers(study: Study) -> None:
    assessment = assess([CLAIMED], study)
    assert set(verdicts(assessment).values()) == {"not resolved"}
    assert reason_in_words(by_id(assessment)["gain"]) == "not run: se-r16, plain"
    assert all(atom.estimate is None for finding in assessment.all_findings for atom in finding.atoms)
    assert assessment.others == {}


def test_the_noise_pool_holds_what_the_plan_names_and_not_what_lies_in_the_folder(study: Study) -> None:
    fill(study, CLEAR)
    before = assess([CLAIMED], study)
    fill(study, {Variant(se=SEConfig(gate="tanh")): (20.0, 30.0, 40.0, 50.0)})
    after = assess([CLAIMED], study)
    evidence = after.judges["ratio"].evidence
    assert evidence.noise is not None
    assert evidence.noise.pooled_df == 3 * 2
    assert [atom.se for finding in after.all_findings for atom in finding.atoms] == [
        atom.se for finding in before.all_findings for atom in finding.atoms
    ]
    assert list(after.findings) == ["ratio"]


# --- levels ---


def test_a_secondary_claim_changes_no_level(study: Study) -> None:
    fill(study, CLEAR)
    with_it = by_id(assess([CLAIMED], study))
    without = by_id(assess([claimed(*CLAIMED.claims[:2])], study))
    as_primary = claimed(*(each.model_copy(update={"secondary": False}) for each in CLAIMED.claims))
    assert with_it["gain"].level == without["gain"].level == pytest.approx(0.05 / 2)
    assert by_id(assess([as_primary], study))["gain"].level == pytest.approx(0.05 / 3)
    assert with_it["gain"].atoms[0].low == without["gain"].atoms[0].low, "nor any interval"


# --- looks ---


def test_a_verdict_of_the_first_look_stays_and_later_runs_change_the_numbers_beside_it(study: Study) -> None:
    put_plan(study, 3, 6, rules=Rules(looks=2))
    later = {R4: (10.5, 9.5, 12.0), R16: (60.0, 61.0, 59.0), PLAIN: (20.0, 21.0, 19.0)}
    fill(study, CLEAR)
    fill(study, later, first_seed=3)
    found = by_id(assess([CLAIMED], study))
    assert (found["gain"].verdict, reason_in_words(found["gain"])) == ("reproduced", "reached at interim analysis 1")
    (atom,) = found["gain"].atoms
    assert atom.estimate == pytest.approx(np.mean([*CLEAR[PLAIN], 20, 21, 19]) - np.mean([*CLEAR[R16], 60, 61, 59]))
    assert atom.n == (6, 6)
    assert found["same"].verdict == "not resolved", "for by now the two are further apart than the margin"
    assert reason_in_words(found["same"]).endswith(
        "the verdict of interim analysis 1 is given up: its comparisons now say the opposite"
    )


def test_a_contradiction_of_the_first_look_stays_until_the_runs_say_the_opposite(study: Study) -> None:
    put_plan(study, 3, 6, rules=Rules(looks=2))
    fill(study, {R4: CLEAR[R4], R16: CLEAR[PLAIN], PLAIN: CLEAR[R16]})
    fill(study, {R16: (10.0, 10.5, 9.5), PLAIN: (35.0, 36.0, 34.0)}, first_seed=3)
    found = by_id(assess([CLAIMED], study))
    assert found["gain"].atoms[0].estimate == pytest.approx(-7.5), "less than it was"
    assert found["gain"].verdict == "contradicted"
    assert reason_in_words(found["gain"]) == "reversed; reached at interim analysis 1"
    fill(study, {PLAIN: (80.0, 81.0, 79.0)}, first_seed=3)
    found = by_id(assess([CLAIMED], study))
    assert found["gain"].atoms[0].estimate == pytest.approx(15.0), "now the other way"
    assert found["gain"].verdict == "not resolved"
    assert "interim analysis 1 is given up" in reason_in_words(found["gain"])


def test_the_earliest_of_several_looks_is_named(study: Study) -> None:
    put_plan(study, 2, 3, 4, rules=Rules(looks=3))
    fill(study, {variant: (*errors, errors[0]) for variant, errors in CLEAR.items()})
    assert reason_in_words(by_id(assess([CLAIMED], study))["gain"]) == "reached at interim analysis 1"


def test_a_verdict_that_only_the_last_look_reaches_names_no_look(study: Study) -> None:
    put_plan(study, 3, 6, rules=Rules(looks=2))
    fill(study, ALIKE)
    fill(study, CLEAR, first_seed=3)
    found = by_id(assess([CLAIMED], study))
    assert (found["gain"].verdict, reason_in_words(found["gain"])) == ("reproduced", "")


def test_with_an_unplanned_extension_the_plans_own_seeds_are_a_look(study: Study) -> None:
    fill(study, CLEAR)
    fill(study, {R16: (60.0, 61.0, 59.0), PLAIN: (20.0, 21.0, 19.0)}, first_seed=3)
    found = by_id(assess([CLAIMED], study))
    assert (found["gain"].verdict, reason_in_words(found["gain"])) == ("reproduced", "reached at interim analysis 1")


# --- departures that bar a verdict ---


def test_an_arm_taught_in_another_way_bars_the_claims_that_name_it_and_no_others(study: Study) -> None:
    fill(study, {R16: CLEAR[R16], PLAIN: CLEAR[PLAIN]})
    fill(study, {R4: CLEAR[R4]}, precision="bf16")
    found = by_id(assess([CLAIMED], study))
    assert found["gain"].verdict == "reproduced"
    for name in ("same", "beside"):
        assert found[name].verdict == "not resolved"
        assert "arms differ in what is not declared: r4 in " in reason_in_words(found[name])
        assert "(bf16, not fp32)" in reason_in_words(found[name])


def test_a_reference_taught_in_another_way_bars_every_claim(study: Study) -> None:
    fill(study, {R4: CLEAR[R4], PLAIN: CLEAR[PLAIN]})
    fill(study, {R16: CLEAR[R16]}, devices=4)
    assert set(verdicts(assess([CLAIMED], study)).values()) == {"not resolved"}


def test_the_network_without_se_bars_every_claim_of_a_table_for_all_lean_on_the_gain(study: Study) -> None:
    fill(study, {R4: CLEAR[R4], R16: CLEAR[R16]})
    fill(study, {PLAIN: CLEAR[PLAIN]}, precision="bf16")
    found = by_id(assess([CLAIMED], study))
    assert {finding.verdict for finding in found.values()} == {"not resolved"}
    assert "plain in " in reason_in_words(found["same"])


def test_a_departure_bars_in_its_own_table_alone(study: Study) -> None:
    fill(study, {R16: CLEAR[R16], PLAIN: CLEAR[PLAIN]})
    fill(study, {R4: CLEAR[R4]}, precision="bf16")
    other = claimed(claim("other", better("r16", "plain"))).model_copy(
        update={"slug": "other", "rows": ABLATION.rows[1:]}
    )
    assert verdicts(assess([CLAIMED, other], study))["other"] == "reproduced"


def test_a_table_with_a_barred_claim_is_still_written(study: Study) -> None:
    fill(study, {R16: ALIKE[R16], PLAIN: ALIKE[PLAIN]})
    fill(study, {R4: ALIKE[R4]}, precision="bf16")
    assessment = assess([CLAIMED], study)
    page = to_markdown(build_table(CLAIMED, assessment))
    _, _, *rows = markdown_cells(page)
    assert [row[1] for row in rows] == ["3", "3", "3"]
    assert "arms differ in what is not declared" in page
    assert "Caution: the runs differ in precision: bf16, fp32." in page


def test_another_machine_is_told_and_bars_nothing(study: Study) -> None:
    fill(study, {R16: CLEAR[R16], PLAIN: CLEAR[PLAIN]})
    fill(study, {R4: CLEAR[R4]}, cpu="Another processor")
    assessment = assess([CLAIMED], study)
    assert set(verdicts(assessment).values()) == {"reproduced"}
    (caution,) = assessment.cautions
    assert "ratio:r4 against r16" in " ".join(caution.split())
    assert "Another processor" in caution


def test_further_seeds_taught_in_another_way_bar_nothing_as_long_as_no_seed_is_compared_with_them(
    study: Study,
) -> None:
    put_plan(study, {R4: 4, R16: 3, PLAIN: 3})
    fill(study, CLEAR)
    write_record(study, make_record(R4, 3, 10.5, devices=4))
    assert set(verdicts(assess([CLAIMED], study)).values()) == {"reproduced"}


def test_a_row_misses_no_seed_that_its_plan_does_not_give_it(study: Study) -> None:
    put_plan(study, {R4: 2, R16: 4, PLAIN: 3})
    fill(study, {R4: (10.0, 10.5), R16: (11.0, 11.5, 12.0, 12.5), PLAIN: (13.0, 13.5)})
    frame = build_table(CLAIMED, assess([CLAIMED], study)).frame
    assert dict(zip(frame["row"], frame["note"], strict=True)) == {"r4": "", "r16": "", "plain": "not run: seed 2"}


# --- other metrics ---


def test_secondary_metrics_are_judged_beside_the_primary_one(study: Study) -> None:
    for variant, errors in ALIKE.items():
        for seed, (top1, top5) in enumerate(zip(errors, CLEAR[variant], strict=True)):
            write_record(study, make_record(variant, seed, top1 + 40, top5_err=top5))
    assessment = assess([CLAIMED], study)
    assert set(assessment.others) == {"cross_entropy", "top5_err"}
    assert set(assessment.secondary_evidence) == set(assessment.others)
    by_top5 = {finding.claim.id: finding for finding in assessment.others["top5_err"]["ratio"]}
    assert {finding.verdict for finding in by_top5.values()} == {"reproduced"}
    assert by_top5["gain"].atoms[0].estimate == pytest.approx(40.0)
    assert set(verdicts(assessment).values()) == {"not resolved"}, "the primary metric alone gives the verdict"


def test_a_metric_that_was_not_recorded_is_not_judged(study: Study) -> None:
    fill(study, CLEAR)
    assert set(assess([CLAIMED], study).others) == {"cross_entropy"}


def test_a_margin_in_points_is_none_for_a_metric_of_another_unit(study: Study) -> None:
    put_plan(study, 3, rules=Rules(margin_abs=5.0))
    for variant, errors in CLEAR.items():
        for seed, error in enumerate(errors):  # alike in top-5 error, and no gain of which to take a share
            write_record(study, make_record(variant, seed, error, top5_err=5.0 + seed / 2))
    assessment = assess([CLAIMED], study)
    assert verdicts(assessment)["same"] == "reproduced"
    by_top5 = {finding.claim.id: finding for finding in assessment.others["top5_err"]["ratio"]}
    assert (by_top5["same"].verdict, reason_in_words(by_top5["same"])) == (
        "not resolved",
        "no SE gain to measure against",
    )


def test_rules_may_make_another_metric_the_primary_one(study: Study) -> None:
    put_plan(study, 3, rules=Rules(metric="top5_err"))
    for variant, errors in CLEAR.items():
        for seed, error in enumerate(errors):
            write_record(study, make_record(variant, seed, 90.0 + seed / 2, top5_err=error))
    assessment = assess([CLAIMED], study)
    assert set(verdicts(assessment).values()) == {"reproduced"}
    assert by_id(assessment)["gain"].atoms[0].estimate == pytest.approx(40.0)
    assert set(assessment.others) == {"cross_entropy"}, "never itself"


def test_evidence_has_the_declared_arms_first_whether_run_or_not(study: Study) -> None:
    fill(study, {R16: (10.0, None, 11.0)})
    assessment = assess([CLAIMED], study)
    evidence = gather(assessment.outcomes, [CLAIMED], Rules())
    assert [arm.slug for arm in evidence.arms] == ["se-r4", "se-r16", "plain"]
    assert evidence.counts.tolist() == [0, 2, 0]
    assert evidence.diverged == {Arm(variant=R16): 1}
    assert set(evidence.cost) == set(evidence.arms)


# --- tables of ours ---


def declared(results: Path, *tables: str) -> list[str]:
    return [table.slug for table in choose(tables, ABLATIONS, None, (), None, None, results).declared]


PAPERS = ["ratio", "squeeze", "gate", "stage", "integration", "inner", "nosqueeze"]


def test_a_table_of_ours_is_declared_when_it_is_named(tmp_path: Path) -> None:
    assert declared(tmp_path) == PAPERS
    assert declared(tmp_path, "gate") == PAPERS, "a report is always on all of the paper's tables"
    assert declared(tmp_path, "controls") == [*PAPERS, "controls"]


@pytest.mark.parametrize(
    ("variant", "seed", "begun"),
    [
        (Variant(se=SEConfig(gate="constant")), 0, True),
        (R16, 1000, True),
        (R16, 0, False),
        (PLAIN, 1000, False),
        (Variant(se=SEConfig(gate="tanh")), 0, False),
    ],
    ids=["a control", "other seeds of SE", "SE", "other seeds of another network", "a network of the paper"],
)
def test_a_table_of_ours_is_declared_once_it_has_begun(
    variant: Variant, seed: int, begun: bool, tmp_path: Path
) -> None:
    study = Study(tmp_path / "digits")
    study.run(load_protocol(ABLATIONS, "digits").run_spec(variant, seed).run_id).path.mkdir(parents=True)
    assert declared(tmp_path) == [*PAPERS, *(["controls"] if begun else [])]


def test_the_null_control_is_judged_on_its_own_series_of_seeds(study: Study) -> None:
    (controls,) = load_ablations(ABLATIONS, ["controls"])
    fill(study, {R16: (30.0, 31.0, 29.0), PLAIN: (32.0, 30.5, 30.0)})
    fill(study, {R16: (30.5, 29.5, 31.5)}, first_seed=1000)
    found = by_id(assess([controls], study))
    assert found["control-null"].verdict == "reproduced"
    assert found["control-null"].atoms[0].estimate == pytest.approx(0.5)
    assert reason_in_words(found["control-mechanism"]) == "not run: se-r16-constant; not run: se-r16-random"
    fill(study, {R16: (60.5, 59.5, 61.5)}, first_seed=1000)
    found = by_id(assess([controls], study))
    assert found["control-null"].verdict == "contradicted"
    assert "false alarm" in reason_in_words(found["control-null"])


def test_a_bar_names_the_field_and_leaves_no_atom_decided(study: Study) -> None:
    fill(study, {R16: CLEAR[R16], PLAIN: CLEAR[PLAIN]})
    fill(study, {R4: CLEAR[R4]}, precision="bf16")
    assessment = assess([CLAIMED], study)
    barred = [finding for finding in assessment.all_findings if "precision" in reason_in_words(finding)]
    assert barred
    assert all(atom.verdict == "not resolved" for finding in barred for atom in finding.atoms)
    page = findings_page(assessment)
    assert all(reason_in_words(finding) in page for finding in barred)


def test_a_bar_holds_for_secondary_metrics_too(study: Study) -> None:
    for variant, errors in CLEAR.items():
        for seed, error in enumerate(errors):
            precision = "bf16" if variant == R4 else "fp32"
            write_record(study, make_record(variant, seed, 90.0 - seed, top5_err=error, precision=precision))
    others = assess([CLAIMED], study).others["top5_err"]["ratio"]
    assert {finding.claim.id: finding.verdict for finding in others}["same"] == "not resolved"


def test_a_table_whose_runs_another_one_has_too_is_declared_when_the_plan_names_it(tmp_path: Path) -> None:
    study = Study(tmp_path / "one")
    study.begin(PROTOCOL, FACTS)
    for variant in (R16, PLAIN, Variant(se=SEConfig(gate="double-sigmoid"))):
        write_record(study, make_record(variant, 0, 20.0))
    assert [table.slug for table in declared_tables(ABLATIONS, [], study)][len(PAPERS) :] == ["length"]
    put_plan(study, 1, tables=("gain", "start"))
    declared = declared_tables(ABLATIONS, [], study)
    assert [table.slug for table in declared][len(PAPERS) :] == ["gain", "start"]
    assert [table.slug for table in assess(declared, study).about] == ["gain", "start"]
