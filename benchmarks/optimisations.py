"""Do the optimisations change what is learnt? Compare two studies of the same variants and seeds.

    python benchmarks/optimisations.py results/digits-reference results/digits

Each variant is compared with itself in the other study, by the suite's own statistics; runs of one seed are pairs.
Prints each difference with its simultaneous 95 % interval, and the average difference.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from senet_ablate.analysis import distributions
from senet_ablate.analysis.distributions import max_t
from senet_ablate.analysis.noise import Sample, fit_noise
from senet_ablate.results.arms import Outcomes, load_outcomes
from senet_ablate.results.records import Predictions
from senet_ablate.results.store import Study
from senet_ablate.spec.ablation import Arm
from senet_ablate.spec.claims import Rules


def load(root: Path) -> Outcomes:
    """The finished runs of a study."""
    study = Study(root)
    pin = study.pin()
    if pin is None:
        raise SystemExit(f"{root}: no study")
    return load_outcomes(study, pin)


def scores(outcomes: Outcomes, arm: Arm) -> dict[int, np.ndarray]:
    """Per-image errors in percent by seed."""
    return {
        record.spec.seed: 100.0
        * Predictions.from_file(outcomes.study.run(record.run_id).path / "predictions.npz").wrong
        for record in outcomes.good(arm)
    }


def described(outcomes: Outcomes) -> str:
    """A study in words: runs, optimisations, precision, hardware."""
    made = [record.provenance for record in outcomes.records]
    optimisations = {"not recorded" if each.levers is None else ", ".join(each.levers) or "none" for each in made}
    facts = (optimisations, {each.precision for each in made}, {each.hardware for each in made})
    words = [" and ".join(sorted(values)) for values in facts]
    hours = sum(each.wall_s for each in made) / 60
    return f"{len(made)} runs, optimisations: {words[0]}, {words[1]}, on {words[2]}, {hours:.1f} minutes of one worker"


def compare(first: Path, second: Path) -> str:
    """The comparison of two studies as a page."""
    one, other = load(first), load(second)
    arms = [arm for arm in one.runs if arm in other.runs]
    sample = Sample.of([scores(study, arm) for arm in arms for study in (one, other)])
    noise = fit_noise(sample, Rules())
    if noise is None:
        raise SystemExit("at least one variant needs two seeds")
    contrasts = np.kron(np.eye(len(arms)), [-1.0, 1.0])
    covariance = noise.covariance_of_means(range(2 * len(arms)), paired=True)
    differences = [noise.contrast({2 * place: -1.0, 2 * place + 1: 1.0}) for place in range(len(arms))]
    pointwise = max_t(contrasts, covariance, max(each.df for each in differences)).pointwise(0.05)
    stable = [place for place in range(len(arms)) if not noise.unstable[[2 * place, 2 * place + 1]].any()]
    unstable = [arm.slug for place, arm in enumerate(arms) if place not in stable]
    share = 1 / len(stable)
    average = noise.contrast({2 * place + side: (2 * side - 1) * share for place in stable for side in (0, 1)})
    half = distributions.quantile(0.025, average.df) * average.se
    lines = []
    clear = 0
    for arm, each in zip(arms, differences, strict=True):
        own = distributions.quantile(pointwise / 2, each.df) * each.se
        clear += abs(each.estimate) > own
        lines.append(f"| {arm.slug} | {each.estimate:+.2f} ± {own:.2f} |")
    page = [
        "# Do the optimisations change what is learnt?",
        "",
        f"- `{first.name}`: {described(one)}.",
        f"- `{second.name}`: {described(other)}.",
        f"- Average difference of {len(stable)} variants, the second study less the first: {average.estimate:+.2f} ± "
        f"{half:.2f} points of test error (95 % interval)"
        + (f"; without the unstable {', '.join(unstable)}." if unstable else "."),
        f"- Variants whose simultaneous 95 % interval excludes 0: {clear} of {len(arms)}.",
        "",
        "| variant | difference, points |",
        "|:--|--:|",
        *lines,
    ]
    return "\n".join(page) + "\n"


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    chosen = parser.parse_args()
    print(compare(chosen.one, chosen.other), end="")


if __name__ == "__main__":
    main()
