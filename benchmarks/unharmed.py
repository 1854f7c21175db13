"""Do the levers change what is learnt? Compare two studies of the same arms and seeds by the suite's own statistics.

    python benchmarks/unharmed.py results/digits-reference results/digits

Each network of one study is an arm beside itself in the other; runs of one seed are pairs. Prints the difference of
each with its simultaneous 95 % interval, and that of their average.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from senet_ablate import student
from senet_ablate.noise import Sample, fit_noise
from senet_ablate.outcomes import Outcomes, load_outcomes
from senet_ablate.records import Predictions
from senet_ablate.rules import Rules
from senet_ablate.simultaneous import max_t
from senet_ablate.store import Study
from senet_ablate.suite import Arm


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


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    chosen = parser.parse_args()
    one, other = load(chosen.one), load(chosen.other)
    arms = [arm for arm in one.runs if arm in other.runs]
    sample = Sample.of([scores(study, arm) for arm in arms for study in (one, other)])
    noise = fit_noise(sample, Rules())
    assert noise is not None, "two seeds of some arm are needed"
    contrasts = np.kron(np.eye(len(arms)), [-1.0, 1.0])
    covariance = noise.covariance_of_means(range(2 * len(arms)), paired=True)
    differences = [noise.contrast({2 * place: -1.0, 2 * place + 1: 1.0}) for place in range(len(arms))]
    pointwise = max_t(contrasts, covariance, max(each.df for each in differences)).pointwise(0.05)
    clear = 0
    for arm, each in zip(arms, differences, strict=True):
        half = student.quantile(pointwise / 2, each.df) * each.se
        clear += abs(each.estimate) > half
        print(f"{arm.slug:20s} {each.estimate:+.2f} ± {half:.2f}")
    share = 1 / len(arms)
    all_arms = {2 * place + side: (2 * side - 1) * share for place in range(len(arms)) for side in (0, 1)}
    average = noise.contrast(all_arms)
    half = student.quantile(0.025, average.df) * average.se
    print(f"average of {len(arms)} networks: {average.estimate:+.2f} ± {half:.2f} points")
    print(f"outside the noise: {clear} of {len(arms)}")


if __name__ == "__main__":
    main()
