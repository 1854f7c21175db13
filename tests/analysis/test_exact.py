"""Under test: verdicts by ranks where an arm is unstable, against counting and SciPy's exact tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import comb

import numpy as np
import pytest
from judging import evidence_of, table
from scatter import runs_of
from scipy import stats
from studies import better, same

from senet_ablate.analysis.exact import separation
from senet_ablate.analysis.judge import TableJudge, may_be_best
from senet_ablate.analysis.sample_size import advise
from senet_ablate.analysis.verdicts import AtomVerdict
from senet_ablate.report.findings import reason_in_words, to_decide
from senet_ablate.spec.ablation import Ablation
from senet_ablate.spec.claims import Atom

SOUND = {"plain": (23.9, 24.0, 24.1, 24.05, 23.95), "ref": (20.0, 20.1, 19.9, 20.05, 19.95), "a": (20.5, 20.6, 20.4)}
GATE = (24.5, 24.4, 25.2, 25.5, 83.4)
"""Runs of a gate that is worse in each of them, and collapsed in one."""

B_WORSE, B_BETTER = better("plain", "b"), better("b", "plain")


def judge(ablation: Ablation, runs: Mapping[str, Sequence[float]], **rules: object) -> TableJudge:
    rng = np.random.default_rng(2)
    steady = {name: float(np.var(values, ddof=1)) < 1 for name, values in runs.items()}
    scores = {name: runs_of(values, 0.02 if steady[name] else 25.0, rng) for name, values in runs.items()}
    return TableJudge(ablation, evidence_of(ablation, scores, pairing="none", **rules))


def judged(atoms: Sequence[Atom], b: Sequence[float], **rules: object) -> AtomVerdict:
    ablation = table(*atoms)
    return judge(ablation, {**SOUND, "b": b}, **rules).judge()[0].atoms[0]


def test_an_unstable_arm_whose_runs_are_all_worse_is_worse_though_its_mean_says_nothing():
    found = judged([B_WORSE], GATE)
    assert found.low < 0 < found.high
    # Mann and Whitney's exact test at its most extreme is 1 over the number of orders; the two tests share the level.
    p = stats.mannwhitneyu(GATE, SOUND["plain"], alternative="greater", method="exact").pvalue
    assert p == pytest.approx(1 / comb(10, 5))
    assert (found.verdict, found.p) == ("reproduced", pytest.approx(2 * p))
    assert reason_in_words(found) == "each of 5 runs is worse than each of 5; 1 in 252 if the gate made no difference"
    assert found.new_images == "open"


def test_one_run_among_the_others_undoes_it():
    found = judged([B_WORSE], (24.0, *GATE[1:]))
    assert (found.verdict, reason_in_words(found)) == ("not resolved", "within the noise")


@pytest.mark.parametrize(("count", "expected"), [(5, "reproduced"), (4, "not resolved")])
def test_an_unstable_arm_needs_five_runs(count, expected):
    assert judged([B_WORSE], GATE[-count:]).verdict == expected


@pytest.mark.parametrize(("count", "p"), [(4, 2 / 126), (3, None)])
def test_the_other_arm_needs_four(count, p):
    ablation = table(B_WORSE)
    runs = {**SOUND, "plain": SOUND["plain"][:count], "b": GATE}
    found = judge(ablation, runs).judge()[0].atoms[0]
    assert found.verdict == ("reproduced" if p else "not resolved")
    assert (found.p == pytest.approx(p)) if p else found.p > 0.05


def test_a_claim_is_reversed_at_half_of_alpha_over_the_comparisons_of_its_table():
    # 1 in 252 is below 0.05 / (2 * 6), not below 0.05 / (2 * 7).
    more = [better("ref", "a"), better("a", "ref"), better("ref", "plain"), better("a", "plain"), better("plain", "a")]
    for others, expected in ((more, "contradicted"), ([*more, better("plain", "ref")], "not resolved")):
        found = judged([B_BETTER, *others], GATE)
        assert found.verdict == expected
    found = judged([B_BETTER], GATE)
    assert reason_in_words(found).startswith("reversed: each of 5 runs is worse than each of 5; 1 in 252 if")


def test_the_intervals_of_such_a_table_have_half_of_the_error_and_those_of_others_all_of_it():
    runs = {**SOUND, "b": GATE}
    assert judge(table(B_WORSE), runs).coverage == pytest.approx(0.975)
    for other in (better("ref", "a"), same("b", "plain")):
        assert judge(table(other), runs).coverage == pytest.approx(0.95)
    assert judge(table(B_WORSE), {**runs, "b": GATE[:2]}).coverage == pytest.approx(0.95)


def test_sound_arms_are_left_to_students_t():
    whole = judge(table(better("ref", "plain")), {**SOUND, "b": GATE})
    assert separation(whole.evidence, whole.contrasts.arm("plain"), whole.contrasts.arm("ref")) is None


def test_an_arm_that_collapsed_is_never_among_the_best():
    ablation = table(B_WORSE)
    runs = {**SOUND, "b": (19.9, 20.1, 20.0, 20.2, 83.0)}
    found = judge(ablation, runs)
    assert "b" in may_be_best(found), "its interval is wide enough for anything"
    fallen = TableJudge(ablation, replace(found.evidence, collapsed={ablation.arm("b"): 1}))
    assert may_be_best(fallen) == {"ref"}


def test_seeds_still_needed_are_those_of_the_test_that_would_decide():
    whole = judge(table(B_WORSE, B_BETTER, better("ref", "a")), {**SOUND, "b": GATE[-3:]})
    finding = advise(whole, whole.judge()[0])
    (atom,) = finding.atoms
    # Three runs apart so far: five of the gate are needed, and 2 / C(12, 5) is below 0.05 / 3.
    assert (atom.verdict, atom.more_seeds, atom.if_apart) == ("not resolved", 2, True)
    assert to_decide(finding) == "2 more seeds of each, if all runs stay apart as they are"
