"""Under test: verdicts on all of the paper's tables at once, in studies of known truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scatter import evenly, runs_of
from studies import paper_tables

from senet_ablate.analysis.calibration import GroundTruth, Simulator, paper_errors
from senet_ablate.analysis.evidence import Evidence
from senet_ablate.analysis.judge import TableJudge, judges_of
from senet_ablate.analysis.noise import Sample
from senet_ablate.analysis.verdicts import FindingVerdict
from senet_ablate.report.findings import reason_in_words
from senet_ablate.spec.ablation import Ablation, Arm, arms
from senet_ablate.spec.claims import Atom, Rules, Superior
from senet_ablate.spec.cost import PAPER_CLASSES, PAPER_NETWORK, PAPER_RESOLUTION, total_cost

TABLES = paper_tables()
COST = {
    arm: total_cost(PAPER_NETWORK, arm.variant, in_channels=3, classes=PAPER_CLASSES, resolution=PAPER_RESOLUTION)
    for arm in arms(TABLES)
}


def test_a_suite_has_one_critical_value_that_is_above_each_tables():
    rng = np.random.default_rng(2)
    errors = paper_errors(TABLES, 1.0)
    scores = [dict(enumerate(runs_of(error + evenly(3, 0.25), 0.05, rng))) for error in errors.values()]

    def judges(family: str) -> list[TableJudge]:
        return judges_of(
            TABLES, Evidence(tuple(errors), Sample.of(scores), Rules(family=family), cost=COST, points=1 << 11)
        )

    apart, together = judges("table"), judges("suite")
    assert [judge.level for judge in apart] == pytest.approx([0.05 / 3] + [0.05 / 2] * 6)
    assert [judge.level for judge in together] == pytest.approx([0.05 / 15] * 7)
    assert len({judge.pointwise for judge in together}) == 1
    assert together[0].pointwise < min(judge.pointwise for judge in apart)
    for one, other in zip(apart, together, strict=True):
        for wide, narrow in zip(other.judge(), one.judge(), strict=True):
            assert not (wide.verdict != "not resolved" and narrow.verdict == "not resolved")
            for ours, theirs in zip(wide.atoms, narrow.atoms, strict=True):
                if ours.estimate is not None:
                    assert ours.high - ours.low > theirs.high - theirs.low


def suite_of(errors: Mapping[Arm, float], seeds: int, sd: float, **rules: Any) -> Evidence:
    rng = np.random.default_rng(5)
    scores = [dict(enumerate(runs_of(error + rng.normal(0, sd, seeds), 0.8 * sd**2, rng))) for error in errors.values()]
    return Evidence(tuple(errors), Sample.of(scores), Rules(**rules), cost=COST, points=1 << 11)


def all_findings(tables: Sequence[Ablation], evidence: Evidence) -> dict[str, FindingVerdict]:
    return {finding.claim.id: finding for judge in judges_of(tables, evidence) for finding in judge.judge()}


def test_the_papers_own_numbers_with_tiny_noise_reproduce_every_finding():
    evidence = suite_of(paper_errors(TABLES, 1.0), 3, 0.002)
    findings = all_findings(TABLES, evidence)
    family = {name for name, finding in findings.items() if not finding.claim.secondary}
    assert len(family) == 15
    assert {name: finding.verdict for name, finding in findings.items()} == dict.fromkeys(findings, "reproduced")


def test_the_papers_numbers_the_other_way_round_contradict():
    findings = all_findings(TABLES, suite_of(paper_errors(TABLES, -1.0), 3, 0.002))
    superiors = {
        reason_in_words(atom)
        for finding in findings.values()
        for atom in finding.atoms
        if isinstance(atom.atom, Superior)
    }
    assert superiors == {"reversed"}
    assert findings["14a"].verdict == "not resolved"  # no gain to measure by
    assert reason_in_words(findings["15a"]) == "no SE gain to measure against"


# --- what may not matter ---


def outcome(findings: Mapping[str, FindingVerdict]) -> dict[str, tuple]:
    return {
        name: (
            finding.verdict,
            reason_in_words(finding),
            *((atom.verdict, reason_in_words(atom), atom.new_images) for atom in finding.atoms),
        )
        for name, finding in findings.items()
    }


def p_values(findings: Mapping[str, FindingVerdict]) -> list[float]:
    return [atom.p for finding in findings.values() for atom in finding.atoms if atom.p is not None]


def losses() -> tuple[list[Arm], np.ndarray]:
    """Skewed scores like cross-entropy, (arms, seeds, images), with the paper's differences but for two."""
    rng = np.random.default_rng(9)
    errors = paper_errors(TABLES, 1.0)
    errors[TABLES[0].arm("r32")] = 21.8
    errors[TABLES[1].arm("max")] = 22.28
    images = rng.gamma(1.0, 0.02, 200)
    scores = rng.gamma(2.0, 0.25, (17, 3, 200)) * images + 0.0008 * rng.standard_normal((17, 3, 1))
    scores = scores - scores.mean(axis=(1, 2), keepdims=True) + np.array(list(errors.values()))[:, None, None] / 100
    return list(errors), scores + 0.0005 * rng.standard_normal((17, 1, 1))


def verdicts_on(placed: Sequence[Arm], scores: np.ndarray, tables: Sequence[Ablation] = TABLES) -> dict:
    sample = Sample.of([dict(enumerate(arm)) for arm in scores])
    return all_findings(tables, Evidence(tuple(placed), sample, Rules(), cost=COST, points=1 << 12))


def renamed(ablation: Ablation) -> Ablation:
    """The same table with other ids of its rows."""

    def other(name: str) -> str:
        return name if name == "plain" else f"x-{name[::-1].strip('-')}"

    def of_atom(atom: Atom) -> Atom:
        fields = {
            key: tuple(map(other, value)) if isinstance(value, tuple) else other(value)
            for key, value in atom.model_dump().items()
            if key in ("better", "worse", "arm", "than", "arms")
        }
        return atom.model_copy(update=fields)

    return ablation.model_copy(
        update={
            "reference": other(ablation.reference),
            "rows": tuple(row.model_copy(update={"id": other(row.id)}) for row in ablation.rows),
            "claims": tuple(
                claim.model_copy(update={"atoms": tuple(map(of_atom, claim.atoms))}) for claim in ablation.claims
            ),
        }
    )


def test_neither_unit_nor_names_nor_the_order_of_arms_or_images_changes_a_verdict():
    placed, scores = losses()
    usual = verdicts_on(placed, scores)
    seen = Counter(finding.verdict for finding in usual.values())
    assert min(seen[each] for each in ("reproduced", "contradicted", "not resolved")) > 0, "a study with all verdicts"
    rng = np.random.default_rng(1)
    images, order = rng.permutation(200), rng.permutation(17)
    for name, found in {
        "unit": verdicts_on(placed, 37.5 * scores),
        "images": verdicts_on(placed, scores[:, :, images]),
        "arms": verdicts_on([placed[place] for place in order], scores[order]),
        "names": verdicts_on(placed, scores, [renamed(ablation) for ablation in TABLES]),
    }.items():
        assert outcome(found) == outcome(usual), name
        assert p_values(found) == pytest.approx(p_values(usual), rel=1e-6), name


# --- false findings ---


def false_findings(studies: int) -> tuple[Counter[str], int]:
    """Tables with a false finding, and suites with any, where all arms are equal and have 3 seeds."""
    errors = paper_errors(TABLES, 0.0)
    truth = GroundTruth(errors, images=2000, sd=0.25 * 5**0.5)  # what 0.25 on 10,000 images is on 2,000
    simulator = Simulator(truth, np.random.default_rng(1))
    met: Counter[str] = Counter()
    suites = 0
    for number in range(studies):
        sample = simulator.draw((3,) * 17, np.random.default_rng([1, number]))
        evidence = Evidence(tuple(errors), sample, Rules(), cost=COST, points=1 << 11)
        said = {
            judge.ablation.slug
            for judge in judges_of(TABLES, evidence)
            for finding in judge.judge()
            if finding.verdict != "not resolved" and not finding.claim.secondary
        }
        met.update(said)
        suites += bool(said)
    return met, suites


def test_where_all_networks_are_equal_few_studies_have_a_false_finding():
    met, suites = false_findings(60)
    assert max(met.values(), default=0) <= 8  # 5 % are 3; more than 8 come once in 300
    assert 1 <= suites <= 15  # one in ten are 6


@pytest.mark.slow
def test_where_all_networks_are_equal_less_than_8_percent_of_studies_have_a_false_finding_in_a_table():
    met, suites = false_findings(400)
    assert max(met.values()) < 0.08 * 400
    assert suites < 0.15 * 400
