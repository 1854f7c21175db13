"""The suite's statistics for runs that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from senet_ablate.analysis.distributions import max_t, quantile
from senet_ablate.analysis.noise import Difference, Sample, fit_noise
from senet_ablate.errors import UserError
from senet_ablate.spec.claims import Rules


def compare(runs: Mapping[str, Sequence[object]], reference: str | None = None, *, alpha: float = 0.05) -> pd.DataFrame:
    """Compare variants by several runs of each, with intervals that hold together (as under the tables of a report).

    Args:
        runs: for each variant its runs, seed by seed. A run is an array (images,) of bool that says which test images
            were classified correctly, the same images in the same order in all runs; or its accuracy in percent.
        reference: the variant that the others are compared with; by default the first.
        alpha: one minus the confidence of the simultaneous intervals.

    Returns:
        A line per variant: `n`, `error` (mean over runs, in percent), `difference` to the reference, `low` and `high`
        of its simultaneous interval, and `p`, two-sided and adjusted for the number of comparisons.

        Outcomes per image go through the suite's noise model, which pools the run-to-run variance that images do not
        explain. Accuracies are compared with a variance pooled over variants, as in Dunnett's test.

    Raises:
        UserError: fewer than two variants, no variant with two runs, or runs of different kinds or images.

    Example:
        >>> frame = compare({"no SE": [91.0, 91.4, 90.9], "mine": [92.1, 92.6, 92.0]})
        >>> frame.loc["mine", "n"].item()
        3
    """
    names = list(runs)
    chosen = names[0] if reference is None and names else str(reference)
    if len(names) < 2 or chosen not in runs or not all(len(each) for each in runs.values()):
        raise UserError(f"compare: expected two variants or more with runs, and the reference among them; got {names}")
    arrays = {name: [np.asarray(run) for run in each] for name, each in runs.items()}
    kinds = {run.ndim for each in arrays.values() for run in each}
    shapes = {run.shape for each in arrays.values() for run in each}
    if len(kinds) > 1 or len(shapes) > 1 or not kinds <= {0, 1}:
        raise UserError(f"compare: runs of different kinds or images, shapes {sorted(shapes, key=str)}")
    if max(len(each) for each in arrays.values()) < 2:
        raise UserError("compare: no variant has two runs, so nothing tells how much runs differ by themselves")
    place = names.index(chosen)
    weights = np.eye(len(names)) - np.eye(len(names))[place]
    others = [number for number in range(len(names)) if number != place]
    if kinds == {1}:
        means, found, covariance = _by_images(arrays, weights, others)
    else:
        means, found, covariance = _by_accuracy(arrays, weights, others)
    df = max(each.df for each in found.values())
    together = max_t(weights[others], covariance, df)
    pointwise = together.pointwise(alpha)
    lines = []
    for number, name in enumerate(names):
        line = {"variant": name, "n": len(arrays[name]), "error": float(means[number])}
        if number in found:
            each = found[number]
            half = quantile(pointwise / 2, each.df) * each.se
            p = 2 * min(each.p_above(), 1 - each.p_above())
            line |= {
                "difference": each.estimate,
                "low": each.estimate - half,
                "high": each.estimate + half,
                "p": together.adjusted(p) if p > 0 else 0.0,
            }
        lines.append(line)
    return pd.DataFrame(lines).set_index("variant")


def _by_images(
    arrays: Mapping[str, list[np.ndarray]], weights: np.ndarray, others: Sequence[int]
) -> tuple[np.ndarray, dict[int, Difference], np.ndarray]:
    wrong = [{seed: 100.0 * ~run.astype(bool) for seed, run in enumerate(each)} for each in arrays.values()]
    noise = fit_noise(Sample.of(wrong), Rules())
    assert noise is not None  # some variant has two runs
    if not all(noise.b > 0):
        raise UserError("compare: runs of one variant came out the same on every image; their seed has no effect")
    found = {number: noise.contrast(dict(enumerate(weights[number]))) for number in others}
    return noise.sample.arm_means, found, noise.covariance_of_means(range(len(arrays)), paired=True)


def _by_accuracy(
    arrays: Mapping[str, list[np.ndarray]], weights: np.ndarray, others: Sequence[int]
) -> tuple[np.ndarray, dict[int, Difference], np.ndarray]:
    errors = [100.0 - np.array(each, dtype=float) for each in arrays.values()]
    means, counts = np.array([each.mean() for each in errors]), np.array([len(each) for each in errors])
    df = float((counts - 1).sum())
    variance = sum(((each - each.mean()) ** 2).sum() for each in errors) / df
    if variance == 0:
        raise UserError("compare: all runs of each variant have the same accuracy, so nothing tells how runs differ")
    covariance = np.diag(variance / counts)
    ses = {number: float(weights[number] @ covariance @ weights[number]) ** 0.5 for number in others}
    found = {number: Difference(float(weights[number] @ means), se, df, float("nan")) for number, se in ses.items()}
    return means, found, covariance
