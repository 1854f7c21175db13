"""Under test: levels of findings, p-values and simultaneous intervals, against t tests by hand."""

from __future__ import annotations

import numpy as np
import pytest
from judging import A_WORSE, DF, FAINT, SUPERIOR_FAMILY, critical_by_hand, moved, se_by_hand, study, table, verdict
from scipy import stats
from studies import better, same

from senet_ablate.analysis.distributions import max_t
from senet_ablate.analysis.judge import TableJudge
from senet_ablate.analysis.verdicts import FindingVerdict
from senet_ablate.report.findings import reason_in_words

CLOSE = 5e-4


def test_estimate_standard_error_df_and_p_value_are_those_of_a_t_test_with_the_pooled_variance():
    found = verdict(A_WORSE, moved("a", 0.08))
    assert found.estimate == pytest.approx(0.08)
    assert found.se == pytest.approx(se_by_hand(1, -1), rel=1e-4)
    assert found.df == DF
    assert found.p == pytest.approx(stats.t.sf(0.08 / se_by_hand(1, -1), DF), rel=1e-3)
    assert found.confidence == 1 - found.p
    assert found.n == (5, 5)
    assert (found.paper_value, found.paper_z) == (pytest.approx(0.5), pytest.approx(0.5 / 0.17))


LEVELS = [
    pytest.param(1, None, {}, 0.05, id="one-finding"),
    pytest.param(3, None, {}, 0.05 / 3, id="three-findings"),
    pytest.param(2, None, {"alpha": 0.1}, 0.05, id="alpha"),
    pytest.param(2, 15, {"family": "study"}, 0.05 / 15, id="study"),
    pytest.param(1, None, {"looks": 2}, 0.05 * 0.6, id="two-looks"),
    pytest.param(2, None, {"looks": 5}, 0.05 * 0.31 / 2, id="five-looks"),
]


@pytest.mark.parametrize(("count", "findings", "rules", "level"), LEVELS)
def test_a_finding_is_reproduced_from_its_share_of_alpha_on(count, findings, rules, level):
    others = [better("ref", "b"), better("b", "a")][: count - 1]
    ablation = table(A_WORSE, *others, secondary=[better("a", "plain"), same("ref", "b")])
    bar = stats.t.isf(level, DF) * se_by_hand(1, -1)
    for by, expected in ((1.001 * bar, "reproduced"), (0.999 * bar, "not resolved")):
        together = [table(*[A_WORSE] * findings)] if findings else []
        judge = TableJudge(ablation, study(ablation, moved("a", by, FAINT), **rules), together)
        finding = judge.judge()[0]
        assert finding.level == pytest.approx(level)
        assert finding.verdict == expected
        assert reason_in_words(finding) == ("" if expected == "reproduced" else "within the noise")


def test_a_finding_holds_if_all_its_atoms_hold_and_each_has_the_whole_level():
    ablation = table(A_WORSE)
    both = ablation.claims[0].model_copy(update={"atoms": (A_WORSE, better("ref", "b"))})
    ablation = ablation.model_copy(update={"claims": (both,)})
    bar = stats.t.isf(0.05, DF) * se_by_hand(1, -1)

    def finding(a: float, b: float) -> FindingVerdict:
        (found,) = TableJudge(ablation, study(ablation, {**FAINT, "a": 20 + a, "b": 20 + b})).judge()
        return found

    assert finding(1.01 * bar, 1.01 * bar).verdict == "reproduced"
    open_one = finding(1.01 * bar, 0.99 * bar)
    assert [atom.verdict for atom in open_one.atoms] == ["reproduced", "not resolved"]
    assert open_one.verdict == "not resolved"
    against = finding(0.99 * bar, -5 * bar)
    assert [atom.verdict for atom in against.atoms] == ["not resolved", "contradicted"]
    assert (against.verdict, reason_in_words(against)) == ("contradicted", "reversed")


def test_intervals_are_simultaneous_over_gain_rows_and_margins():
    found = verdict(A_WORSE, moved("a", 0.08))
    half = critical_by_hand(*SUPERIOR_FAMILY) * se_by_hand(1, -1)
    assert (found.low, found.high) == (
        pytest.approx(0.08 - half, abs=CLOSE * half),
        pytest.approx(0.08 + half, abs=CLOSE * half),
    )
    # The margins are part of it.
    assert critical_by_hand(*SUPERIOR_FAMILY) > 1.02 * critical_by_hand(*SUPERIOR_FAMILY[:3])


def test_the_adjusted_p_value_is_the_chance_of_any_contrast_of_the_table_reaching_it():
    found = verdict(A_WORSE, moved("a", 0.15))
    p = max_t(np.array(SUPERIOR_FAMILY), np.eye(4), DF).tail(0.15 / se_by_hand(1, -1))
    assert found.p_adjusted == pytest.approx(p, abs=1e-3)
    assert 2 * found.p < found.p_adjusted < 10 * found.p
