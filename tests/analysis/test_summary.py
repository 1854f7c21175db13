"""Several studies: seed pairs, in how many of them a comparison holds, what differs between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import FACTS, PLAIN, PROTOCOL, R4, R16, make_record, write_record
from scipy import stats
from statsmodels.stats.multitest import multipletests
from studies import CLAIMED, put_plan

from senet_ablate.analysis.study import assess
from senet_ablate.analysis.summary import ALPHA, effect, partial_conjunction, seed_values, summarise
from senet_ablate.errors import UserError
from senet_ablate.results.store import Study
from senet_ablate.spec.claims import Rules
from senet_ablate.spec.protocol import DataFacts


def made(root: Path, name: str, gain: float, epochs: int = 2, facts: DataFacts = FACTS, seeds: int = 4) -> Study:
    """Four seeds of SE around 20 % and of no SE around that and a gain."""
    recipe = PROTOCOL.recipe.model_copy(update={"epochs": epochs})
    protocol = PROTOCOL.model_copy(update={"recipe": recipe})
    study = Study(root / name)
    study.begin(protocol, facts)
    for variant, mean in ((R16, 20.0), (PLAIN, 20.0 + gain)):
        for seed, apart in enumerate((-0.5, 0.0, 0.5, 1.0)[:seeds]):
            error = mean + apart * (1 if variant == R16 else -1)
            made = make_record(variant, seed, error, protocol=protocol, fingerprint=facts.fingerprint)
            write_record(study, made)
    return study


@pytest.mark.parametrize(
    ("p_values", "holds"),
    [
        ([0.04], 1),
        ([0.06], 0),
        ([0.001, 0.01, 0.4], 2),  # 3 x 0.001, 2 x 0.01 and 1 x 0.4
        ([0.02, 0.04, 0.4], 0),  # 0.06, 0.08, 0.4
        ([0.04, 0.045], 2),  # both below 0.05: their largest decides
        ([0.4, 0.001, 0.9, 0.01], 2),  # in any order: 0.004, 0.03, 0.8, 0.9
        ([], 0),
    ],
)
def test_the_number_of_settings_is_the_largest_whose_p_value_is_small_enough(p_values: list[float], holds: int) -> None:
    assert partial_conjunction(p_values, 0.05) == holds


def test_it_agrees_with_hochbergs_step_up_procedure() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        p_values = rng.random(rng.integers(1, 8)) ** 3
        rejected = multipletests(p_values, 0.05, method="simes-hochberg")[0]
        assert partial_conjunction(p_values, 0.05) == rejected.sum()


def test_a_claim_of_more_settings_than_there_are_is_as_rare_as_its_level() -> None:
    rng = np.random.default_rng(2)
    studies, settings = 4000, 5
    for true in range(settings):
        z = rng.standard_normal((studies, settings))
        z[:, :true] += 9
        false = [partial_conjunction(p, 0.05) > true for p in stats.norm.sf(z)]
        assert np.mean(false) < 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5


def test_the_value_of_a_seed_is_that_of_its_runs(full: Study) -> None:
    write_record(full, make_record(R4, 7, 30.0))
    judge = assess([CLAIMED], full).judges["ratio"]
    contrasts = judge.contrasts
    assert seed_values(judge.evidence, contrasts.mean("r4")) == pytest.approx({0: 10, 1: 12, 2: 17, 7: 30})
    assert seed_values(judge.evidence, contrasts.difference("r4", "r16")) == pytest.approx({0: -1, 1: 0.5, 2: 3.5})
    # Half of the gain kept: no SE less r = 4, less half of no SE less r = 16.
    kept = contrasts.difference("plain", "r4") - 0.5 * contrasts.gain
    assert seed_values(judge.evidence, kept) == pytest.approx({0: 4 - 1.5, 1: 3 - 1.75, 2: -1 - 1.25})


def test_the_gain_has_the_interval_whose_lower_end_is_the_bound_that_decides(tmp_path: Path) -> None:
    assessment = assess([CLAIMED], made(tmp_path, "one", 9.0))
    found = effect(assessment)
    judge = assessment.judges["ratio"]
    whole = judge.evidence.difference(judge.contrasts.gain)
    assert whole is not None
    assert found.estimate == pytest.approx(9.0 - 0.5)
    assert found.low == pytest.approx(found.estimate - stats.t.isf(ALPHA, whole.df) * whole.se)
    assert found.p == pytest.approx(stats.t.sf(found.estimate / whole.se, whole.df))
    assert found.low is not None
    assert (found.low > 0) == (found.p is not None and found.p < ALPHA) == (found.verdict == "reproduced")
    assert found.paper == pytest.approx(1.02)
    assert effect(assess([CLAIMED], made(tmp_path, "two", -9.0))).verdict == "contradicted"


def test_one_seed_gives_neither_interval_nor_p_value(tmp_path: Path) -> None:
    assessment = assess([CLAIMED], made(tmp_path, "one", 9.0, seeds=1))
    found = effect(assessment)
    assert (found.low, found.high, found.p, found.verdict) == (None, None, None, "not resolved")
    assert summarise([assessment]).holds_in == 0


def test_a_finding_has_the_p_value_of_its_hardest_comparison_and_its_own_verdict(full: Study) -> None:
    assessment = assess([CLAIMED], full)
    found = effect(assessment, "same")
    (same,) = [each for each in assessment.all_findings if each.claim.id == "same"]
    assert found.p == max(atom.p or 0 for atom in same.atoms)
    assert found.verdict == same.verdict
    assert found.estimate == pytest.approx(1.0), "r = 4 less r = 16"
    with pytest.raises(UserError, match="declares no finding 'gian'; did you mean 'gain'"):
        effect(assessment, "gian")


def test_studies_that_differ_in_one_field_say_which_and_shared_runs_are_counted(tmp_path: Path) -> None:
    studies = [made(tmp_path, f"epochs-{epochs}", 5.0, epochs) for epochs in (2, 30)]
    studies.append(made(tmp_path, "again", 5.0, 30, seeds=3))
    found = summarise([assess([CLAIMED], study) for study in studies])
    assert found.varied == {"recipe.epochs": (2, 30, 30)}
    assert found.shared == {("epochs-30", "again"): 6}
    other = FACTS.model_copy(update={"fingerprint": "beef"})
    pair = [made(tmp_path, "images", 5.0), made(tmp_path, "other-images", 5.0, facts=other)]
    assert summarise([assess([CLAIMED], study) for study in pair]).varied == {"data.images": ("f00d", "beef")}


def test_studies_judged_by_different_metrics_are_refused(full: Study, tmp_path: Path) -> None:
    other = made(tmp_path, "entropy", 5.0)
    put_plan(other, 4, rules=Rules(metric="cross_entropy"))
    with pytest.raises(UserError, match="different metrics: cross_entropy, top1_err"):
        summarise([assess([CLAIMED], study) for study in (full, other)])
