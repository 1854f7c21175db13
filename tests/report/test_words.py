"""Verdicts in sentences: what each says, and what it must never say."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import ABLATION
from studies import better, claim, same

from senet_ablate.analysis.verdicts import AtomVerdict, Explanation, FindingVerdict, Reason, Verdict
from senet_ablate.report.findings import deciding, in_words, why
from senet_ablate.report.words import MARK, WORDS
from senet_ablate.spec.claims import Atom, Fewer, Retains

GAIN, SAME = better("r16", "plain"), same("r4", "r16")
FEWER = Fewer(kind="fewer", quantity="params", arm="r16", than="r4")


def atom(what: Atom = GAIN, verdict: Verdict = "reproduced", **changes: Any) -> AtomVerdict:
    """An atom of a study with some runs; its numbers as a judge would give them."""
    usual: dict[str, Any] = {
        "paper_value": 1.02,
        "estimate": 0.61,
        "low": 0.21,
        "high": 1.01,
        "se": 0.15,
        "df": 40.0,
        "p": 0.002,
        "n": (5, 5),
        "new_images": "open",
    }
    return AtomVerdict(what, verdict, **(usual | changes))


def finding(
    verdict: Verdict, *atoms: AtomVerdict, reason: Explanation | None = None, secondary: bool = False
) -> FindingVerdict:
    named = claim("10a", *(each.atom for each in atoms), secondary=secondary)
    return FindingVerdict(ABLATION, named, verdict, (reason,) if reason else (), atoms, 0.05)


def test_a_reproduced_finding_has_its_numbers_and_the_answer_for_new_images() -> None:
    text = in_words(finding("reproduced", atom(n=(5, 11))))
    assert text == (
        "**10a** Sentence 10a: **holds here**; difference +0.61, simultaneous 95 % interval +0.21 to +1.01, "
        "n = 5 to 11; for new images: open."
    )
    assert "for new images: yes" in in_words(finding("reproduced", atom(new_images="yes")))


def test_a_contradicted_finding_has_the_reason_and_the_bound() -> None:
    against = atom(verdict="contradicted", estimate=-0.61, low=-1.01, high=-0.21, new_images="no")
    text = in_words(finding("contradicted", against, reason=Explanation(Reason.REVERSED)))
    assert "**fails here** (reversed); difference -0.61, simultaneous 95 % interval -1.01 to -0.21, n = 5" in text
    assert text.endswith("for new images: no.")


def test_an_open_finding_has_interval_confidence_and_the_seeds_that_would_decide_it() -> None:
    is_open = atom(verdict="not resolved", estimate=0.14, low=-0.16, high=0.44, p=0.12, more_seeds=9)
    text = in_words(finding("not resolved", is_open, reason=Explanation(Reason.WITHIN_NOISE)))
    assert "**open** (within the noise); difference +0.14, simultaneous 95 % interval -0.16 to +0.44" in text
    assert "direction as in the paper with confidence 0.88" in text
    assert "about 9 more seeds of each would decide the paper's difference" in text
    assert "new images" not in text, "there is no verdict to carry over"


def test_a_decided_finding_needs_neither_confidence_nor_more_seeds() -> None:
    for verdict in ("reproduced", "contradicted"):
        text = in_words(finding(verdict, atom(verdict=verdict)))
        assert "confidence" not in text
        assert "more seeds" not in text


def test_what_no_number_of_seeds_would_decide_is_told_as_such() -> None:
    is_open = atom(verdict="not resolved", p=0.4, more_seeds=None)
    assert "; more seeds than are practical would decide the paper's difference" in in_words(
        finding("not resolved", is_open)
    )


def test_the_seeds_needed_are_those_of_the_atom_that_needs_most() -> None:
    atoms = [atom(verdict="not resolved", p=0.2, more_seeds=count) for count in (4, 17, 9)]
    assert "about 17 more seeds" in in_words(finding("not resolved", *atoms))
    hopeless = atom(verdict="not resolved", p=0.2, more_seeds=None)
    assert "more seeds than are practical" in in_words(finding("not resolved", *atoms, hopeless))


def test_seeds_needed_by_atoms_that_hold_do_not_matter() -> None:
    atoms = [atom(more_seeds=99), atom(verdict="not resolved", p=0.2, more_seeds=4)]
    assert "about 4 more seeds" in in_words(finding("not resolved", *atoms))


def test_a_finding_without_runs_has_its_reason_and_no_numbers() -> None:
    missing = Explanation(Reason.NOT_RUN, ("plain",))
    absent = AtomVerdict(GAIN, "not resolved", missing, paper_value=1.02, n=(0, 0))
    text = in_words(finding("not resolved", absent, reason=missing))
    assert text == "**10a** Sentence 10a: **open** (not run: plain)."


def test_an_estimate_of_one_seed_has_neither_interval_nor_confidence() -> None:
    alone = Explanation(Reason.ONE_SEED, ("plain",))
    single = atom(verdict="not resolved", p=None, low=None, high=None, n=(1, 1))
    text = in_words(finding("not resolved", single, reason=alone))
    assert text == "**10a** Sentence 10a: **open** (one seed: plain); difference +0.61, n = 1."


def test_the_bound_that_decided_stands_beside_an_interval_that_may_hold_zero() -> None:
    decided = atom(low=-0.05, high=1.27, bound=0.08, bound_confidence=0.975)
    text = in_words(finding("reproduced", decided))
    assert "difference +0.61, at least +0.08 (one-sided 97.5 % bound, which decided), simultaneous" in text


def test_a_conjunction_shows_its_parts() -> None:
    holds, fails, is_open = (atom(verdict=verdict) for verdict in ("reproduced", "contradicted", "not resolved"))
    for verdict, atoms, parts in (
        ("contradicted", (fails, *[is_open] * 4), "(1 of 5 comparisons fails, 4 open)"),
        ("contradicted", (fails, fails, holds), "(2 of 3 comparisons fail, 1 holds)"),
        ("not resolved", (holds, holds, is_open), "(2 of 3 comparisons hold, 1 open)"),
        ("reproduced", (holds, holds), "(all 2 comparisons hold)"),
    ):
        assert parts in in_words(finding(verdict, *atoms))
    assert "comparisons" not in in_words(finding("not resolved", is_open, is_open))
    assert "comparisons" not in in_words(finding("reproduced", holds))


def test_runs_that_lie_apart_are_told_with_the_chance_of_that_order() -> None:
    reason = Explanation(Reason.SEPARATED, runs=(5, 4), factor="se.squeeze")
    told = "each of 5 runs is worse than each of 4; 1 in 126 if the squeeze made no difference"
    assert f"**holds here** ({told})" in in_words(finding("reproduced", atom(), reason=reason))


@pytest.mark.parametrize(("z", "told"), [(1.0, True), (1.6, True), (1.64, True), (1.65, False), (4.0, False)])
def test_a_published_difference_within_run_noise_is_told(z: float, told: bool) -> None:
    # A difference of two single ResNet-50 runs has a standard deviation of 0.17 points (section 4).
    text = in_words(finding("reproduced", atom(paper_value=0.17 * z)))
    assert ("the published difference is itself within run noise" in text) is told


def test_published_noise_is_told_of_any_atom_of_order_and_of_no_other() -> None:
    words = "within run noise"
    assert words in in_words(finding("reproduced", atom(), atom(paper_value=0.1)))
    assert words not in in_words(finding("reproduced", atom(paper_value=None)))
    assert words not in in_words(finding("reproduced", atom(SAME, paper_value=0.01, rho_star=0.2)))


def test_the_same_is_told_with_the_share_within_which_it_holds() -> None:
    text = in_words(finding("reproduced", atom(SAME, rho_star=0.17), atom(same("r4", "plain"), rho_star=0.38)))
    assert "; equal to within 38% of the SE gain" in text
    no_share = in_words(finding("not resolved", atom(SAME, "not resolved", rho_star=0.2), atom(SAME, "not resolved")))
    assert "equal to within" not in no_share, "one pair may differ by any share"


def test_of_several_atoms_the_least_certain_one_that_says_the_verdict_is_quoted() -> None:
    sure, less = atom(better("r16", "plain"), p=0.001), atom(better("r4", "plain"), p=0.02, estimate=0.4)
    is_open = atom(better("r4", "r16"), "not resolved", p=0.3, estimate=0.1)
    assert deciding(finding("reproduced", sure, less)) is less
    assert deciding(finding("not resolved", sure, less, is_open)) is is_open
    assert "; difference (r4 better than plain) +0.40" in in_words(finding("reproduced", sure, less))


def test_an_exact_count_is_never_quoted_as_a_difference() -> None:
    counted = AtomVerdict(FEWER, "reproduced", Explanation(Reason.EXACT_COUNT, fewer=7), new_images="yes")
    kept = atom(Retains(kind="retains", arm="r4"), estimate=3.1)
    text = in_words(finding("reproduced", kept, counted, reason=counted.reason))
    assert "(all 2 comparisons hold; exact count: 7 fewer parameters); points above the share to keep +3.10" in text
    only_counted = in_words(finding("reproduced", counted, reason=counted.reason))
    assert only_counted.endswith("(exact count: 7 fewer parameters); for new images: open.")


def test_flags_are_told_once_each() -> None:
    flagged = atom(flags=(Explanation(Reason.UNSTABLE, ("plain",)),))
    text = in_words(finding("reproduced", flagged, flagged))
    assert text.count("unstable: plain") == 1


def test_a_secondary_finding_is_marked_as_outside_the_family() -> None:
    assert in_words(finding("reproduced", atom(), secondary=True)).endswith(
        ". Outside the family with guaranteed error rate."
    )
    assert "family" not in in_words(finding("reproduced", atom()))


def test_each_verdict_has_a_mark_of_its_own_and_why_is_the_rest_of_the_sentence() -> None:
    assert MARK == {"reproduced": "✓", "contradicted": "✗", "not resolved": "?"}
    assert WORDS == {"reproduced": "holds here", "contradicted": "fails here", "not resolved": "open"}
    said = finding("reproduced", atom())
    assert in_words(said) == f"**10a** Sentence 10a: **holds here**{why(said)}"


def test_confidence_is_never_certain() -> None:
    for p, words in ((1e-4, "confidence over 0.99"), (1 - 1e-4, "confidence under 0.01"), (0.25, "confidence 0.75")):
        assert words in in_words(finding("not resolved", atom(verdict="not resolved", p=p, more_seeds=3)))
