"""A small table for claims of every kind, studies of it whose noise is known exactly, and t tests by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scatter import evenly, runs_of
from scipy import stats
from studies import better, claim, same

from senet_ablate.analysis.distributions import max_t
from senet_ablate.analysis.evidence import Evidence
from senet_ablate.analysis.judge import TableJudge
from senet_ablate.analysis.noise import Sample
from senet_ablate.analysis.verdicts import AtomVerdict, FindingVerdict
from senet_ablate.report.findings import reason_in_words
from senet_ablate.spec.ablation import Ablation, Arm, PaperFigures, Row
from senet_ablate.spec.claims import Atom, NoDifference, Retains, Rules
from senet_ablate.spec.network import SEConfig, Variant
from senet_ablate.spec.protocol import Complexity

POINTS = 1 << 13
PRINTED = {"ref": 20.0, "plain": 24.0, "a": 20.5, "b": 21.0}
ROWS = tuple(
    Row(id=name, label=name, se=se, first_seed=first, paper=PaperFigures(top1_err=top1, top5_err=1) if top1 else None)
    for name, se, first, top1 in (
        ("ref", SEConfig(), 0, PRINTED["ref"]),
        ("a", SEConfig(gate="tanh"), 0, PRINTED["a"]),
        ("b", SEConfig(gate="relu"), 0, PRINTED["b"]),
        ("again", SEConfig(), 1000, None),
    )
)

STEADY = Arm(variant=Variant(se=SEConfig(reduction=64)))
"""An arm that no claim is about. It scatters by a trifle more than the others, so that each of them takes the pool's
factor: the variance of one run is then that of all arms, the degrees of freedom those of all arms but one."""

TANH, RELU = "se-r16-tanh", "se-r16-relu"


def table(*atoms: Atom, secondary: Sequence[Atom] = ()) -> Ablation:
    """The table with one finding for each atom, and secondary ones."""
    claims = [(atom, False) for atom in atoms] + [(atom, True) for atom in secondary]
    return Ablation(
        slug="some",
        title="Some",
        question="?",
        factor="se.gate",
        reference="ref",
        source="ours",
        plain=PaperFigures(top1_err=PRINTED["plain"], top5_err=1),
        rows=ROWS,
        claims=tuple(claim(f"claim-{number}", atom, secondary=aside) for number, (atom, aside) in enumerate(claims)),
    )


def retains(arm: str, share: float = 0.5) -> Retains:
    return Retains(kind="retains", arm=arm, share=share)


A_WORSE, B_WORSE, SAME, KEEPS = better("ref", "a"), better("ref", "b"), same("a", "b"), retains("a")
NULL = NoDifference(kind="no-difference", arm="again", than="ref")


def study(
    ablation: Ablation,
    errors: Mapping[str, float],
    seeds: int | Mapping[str, int] = 5,
    sd: float = 0.1,
    taste: float = 0.0,
    diverged: Mapping[str, int] | None = None,
    cost: Mapping[str, Complexity] | None = None,
    **rules: Any,
) -> Evidence:
    """Runs of the named arms with these mean errors, each run of standard deviation `sd`, half of its variance shared.

    Arms of the table that are not named have no run.
    """
    named = {ablation.arm(name): name for name in ("plain", *(row.id for row in ablation.rows))}
    rng = np.random.default_rng(7)
    scores = []
    for place, (arm, name) in enumerate({**named, STEADY: ""}.items()):
        count = seeds if isinstance(seeds, int) else seeds.get(name, 5)
        if name and name not in errors:
            count = 0
        spread = sd * (1 if name else 1.00001)
        means = errors.get(name, 20.0) + evenly(max(count, 1), spread)
        runs = runs_of(means, sd**2 / 2, rng, taste=taste * place)
        scores.append({arm.first_seed + number: run for number, run in enumerate(runs[:count])})
    everything = (*named, STEADY)
    return Evidence(
        everything,
        Sample.of(scores),
        Rules(**({"pairing": "none"} | rules)),
        diverged={ablation.arm(name): count for name, count in (diverged or {}).items()},
        cost={ablation.arm(name): count for name, count in (cost or {}).items()},
        points=POINTS,
    )


def evidence_of(ablation: Ablation, scores: Mapping[str, Sequence[np.ndarray]], **rules: Any) -> Evidence:
    """Evidence of the named arms' per-image scores, no two arms with a seed in common; other arms have no run."""
    names = [*(row.id for row in ablation.rows), "plain"]
    sample = Sample.of([dict(enumerate(scores.get(name, ()), 10 * place)) for place, name in enumerate(names)])
    return Evidence(tuple(map(ablation.arm, names)), sample, Rules(**rules), points=POINTS)


def judged(*atoms: Atom, errors: Mapping[str, float] = PRINTED, **settings: Any) -> list[FindingVerdict]:
    ablation = table(*atoms)
    return TableJudge(ablation, study(ablation, errors, **settings)).judge()


def verdict(atom: Atom, errors: Mapping[str, float] = PRINTED, **settings: Any) -> AtomVerdict:
    """The verdict on the only atom of the only finding."""
    (finding,) = judged(atom, errors=errors, **settings)
    (found,) = finding.atoms
    assert (finding.verdict, reason_in_words(finding)) == (found.verdict, reason_in_words(found))
    return found


# --- by hand ---


FOUR = {"plain": 24.0, "ref": 20.0, "a": 20.0, "b": 20.0}
FAINT = {**FOUR, "plain": 20.3}  # a gain too small for any margin to matter
DF = 4 * 4  # four arms and the steady one, five runs each, less the arm itself


def moved(name: str, by: float, errors: Mapping[str, float] = FOUR) -> dict[str, float]:
    return {**errors, name: errors[name] + by}


def se_by_hand(*weights: float, sd: float = 0.1, n: int = 5) -> float:
    return sd * (sum(weight**2 for weight in weights) / n) ** 0.5


def p_of_the_same(difference: float, gain: float, rho: float = 0.25, sd: float = 0.1, n: int = 5) -> float:
    """Of a and b: rho g - D and rho g + D weigh plain, ref, a and b by rho, -rho, -1, 1 and rho, -rho, 1, -1."""
    se = se_by_hand(rho, -rho, 1, -1, sd=sd, n=n)
    return max(stats.t.sf((rho * gain + sign * difference) / se, DF) for sign in (1, -1))


def critical_by_hand(*contrasts: Sequence[float], alpha: float = 0.05) -> float:
    """Of contrasts of plain, ref, a, b, ..., all of one variance."""
    return max_t(np.array(contrasts), np.eye(len(contrasts[0])), DF).critical(alpha)


SUPERIOR_FAMILY = [(1, -1, 0, 0), (0, -1, 1, 0), (0, -1, 0, 1), (0.25, 0.75, -1, 0), (0.25, -1.25, 1, 0)]
"""All that is said of a table whose one claim is `A_WORSE`: the gain, the rows to the reference, both margins."""
