"""Is the printed confidence deserved? Simulate whole studies, judge them by the real code, and count what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit
from threadpoolctl import threadpool_limits

from senet_ablate.analysis import distributions
from senet_ablate.analysis.contrasts import TableContrasts
from senet_ablate.analysis.evidence import Evidence
from senet_ablate.analysis.exact import LEAST_UNSTABLE
from senet_ablate.analysis.judge import judges_of
from senet_ablate.analysis.noise import Sample
from senet_ablate.analysis.verdicts import AtomVerdict, Reason
from senet_ablate.environment import die_with_driver
from senet_ablate.spec.ablation import Ablation, Arm
from senet_ablate.spec.claims import Equivalent, Fewer, Rules, Superior
from senet_ablate.spec.cost import PAPER_CLASSES, PAPER_NETWORK, PAPER_RESOLUTION, total_cost

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class GroundTruth:
    """A truth and its noise: expected errors in percent by arm, and the noise of runs around them.

    `sd` is the standard deviation in points of one run, `phi` its over-dispersion (1: independent errors alone),
    `correlation` that of the run shifts of one seed, `shared` the share of images whose luck arms of one seed share.
    `unstable` multiplies the standard deviation of single arms. `taste` is the spread (in logits) with which arms find
    different images hard. With `pool` > 1 each study sees its own images, drawn from so many times as many, on all of
    which the errors hold.
    """

    errors: Mapping[Arm, float]
    images: int = 10_000
    sd: float = 0.25
    phi: float = 1.3
    correlation: float = 0.0
    shared: float = 0.0
    unstable: Mapping[Arm, float] | None = None
    taste: float = 0.0
    pool: int = 1


class Simulator:
    """Draws samples of runs from a ground truth on one set of test images.

    Args:
        truth: mean errors and noise.
        rng: decides the images; runs are drawn with a generator of their own.
    """

    def __init__(self, truth: GroundTruth, rng: np.random.Generator) -> None:
        self.truth = truth
        arms = list(truth.errors)
        spread = (truth.sd / 100) ** 2 * truth.images / truth.phi  # mean p (1 - p)
        average = float(np.mean(list(truth.errors.values()))) / 100
        if not 0 < spread < average * (1 - average):
            raise ValueError(f"sd = {truth.sd} on {truth.images} images does not fit an error of {100 * average:.3g} %")
        total = truth.pool * truth.images
        z = rng.standard_normal(total)  # standard difficulty of each image
        width = brentq(lambda w: _spread(z, w, average) - spread, 1e-3, 200.0)
        difficulty = width * z
        scale = (truth.phi - 1) / (truth.images * spread)
        self.shift_sd = np.empty(len(arms))
        self.logits = np.empty((len(arms), total), np.float32)
        for place, arm in enumerate(arms):
            multiple = (truth.unstable or {}).get(arm, 1.0)
            # The whole variance grows by its square, but the independent part of it cannot.
            extra = scale + (multiple**2 - 1) * truth.phi / (truth.images * spread)
            if extra < 0:
                raise ValueError(
                    f"unstable: {multiple} of {arm.slug}: the errors of images alone vary more; use at least 1"
                )
            self.shift_sd[place] = extra**0.5
            logits = difficulty + truth.taste * rng.standard_normal(total)
            logits += _level(logits, self.shift_sd[place], truth.errors[arm] / 100)
            self.logits[place] = logits

    def draw(self, seeds: Sequence[int], rng: np.random.Generator) -> Sample:
        """Draw the runs of all arms, the first `seeds[arm]` seeds of each."""
        truth, scores = self.truth, []
        most = max(seeds)
        common_shift = rng.standard_normal(most)
        common_luck = rng.random((most, truth.images), np.float32) if truth.shared else None
        luck_is_common = rng.random(truth.images) < truth.shared
        total = truth.pool * truth.images
        seen = np.arange(total) if truth.pool == 1 else rng.choice(total, truth.images, replace=False)
        for place, count in enumerate(seeds):
            own = rng.standard_normal(count)
            mixed = truth.correlation**0.5 * common_shift[:count] + (1 - truth.correlation) ** 0.5 * own
            chance = expit(self.logits[place, seen] + (self.shift_sd[place] * mixed[:, None]).astype(np.float32))
            luck = rng.random(chance.shape, np.float32)
            if common_luck is not None:
                luck = np.where(luck_is_common, common_luck[:count], luck)
            scores.append({seed: 100.0 * (luck[seed] < chance[seed]) for seed in range(count)})
        return Sample.of(scores)


def _level(logits: np.ndarray, shift_sd: float, error: float) -> float:
    """The constant that brings the mean error over images and run shifts to `error`."""

    def miss(level: float) -> float:
        means = [expit(logits + level + shift_sd * node).mean() for node in NODES]
        return float(WEIGHTS @ means) - error

    return float(brentq(miss, -500.0, 500.0, xtol=1e-9))


def _spread(z: np.ndarray, width: float, error: float) -> float:
    """Mean p (1 - p) where the difficulty has the given width and the mean error is right."""
    p = expit(width * z + _level(width * z, 0.0, error))
    return float(np.mean(p * (1 - p)))


POINTS = 1 << 12
"""Points for the largest |t| here; a report takes sixteen times as many."""

LEAST_COVERAGE = 0.94
MOST_FALSE, MOST_FALSE_UNSTABLE = 0.06, 0.08
"""What must hold: 95 % intervals cover at least so often, at most so many studies have a false finding in a table."""

ENOUGH = LEAST_UNSTABLE
"""Seeds from which the rate holds although one arm is unstable; with fewer, its variance is not well estimated."""

CHUNK = 25


@dataclass(frozen=True)
class Cell:
    """One line of the calibration: a ground truth, the seeds of each arm, and by which rules its studies are judged.

    With `in_turn` each chunk of studies has another arm of three times the noise.
    """

    name: str
    truth: GroundTruth
    seeds: tuple[int, ...]
    rules: Rules = field(default_factory=Rules)
    in_turn: bool = False

    def truth_of(self, chunk: range) -> GroundTruth:
        """The ground truth of a chunk of studies."""
        if not self.in_turn:
            return self.truth
        arms = list(self.truth.errors)
        return replace(self.truth, unstable={arms[chunk.start // CHUNK % len(arms)]: 3.0})


@dataclass(frozen=True)
class Tally:
    """What was seen in one simulated study; `planted` are the arms that are unstable in truth."""

    covered: dict[str, bool]
    simultaneous: dict[str, bool]
    false: dict[str, int]
    right: int
    unstable: tuple[str, ...]
    planted: tuple[str, ...] = ()


def paper_errors(ablations: Sequence[Ablation], scale: float) -> dict[Arm, float]:
    """The paper's printed errors by arm, effects shrunk by `scale` towards the SE network."""
    printed: dict[Arm, float] = {}
    for ablation in ablations:
        for name in ablation.names:
            error = ablation.paper_top1(name)
            if error is not None:
                printed.setdefault(ablation.arm(name), error)
    base = printed[ablations[0].arm(ablations[0].reference)]
    return {arm: base + scale * (error - base) for arm, error in printed.items()}


def cells(ablations: Sequence[Ablation], seeds: Sequence[int]) -> Iterator[Cell]:
    """The ground truths of the calibration: no effects, the paper's, half of them, and what makes life hard."""
    paper, half, none = (paper_errors(ablations, scale) for scale in (1.0, 0.5, 0.0))
    named = {f"{table.slug}:{row.id}": row.arm for table in ablations for row in table.rows}
    relu, maximum, unsqueezed = named["gate:relu"], named["squeeze:max"], named["nosqueeze:nosqueeze"]
    short = GroundTruth(none, sd=0.40, phi=4.0, correlation=0.4, shared=0.3)
    truths = {
        "no effects": GroundTruth(none),
        "paper's effects": GroundTruth(paper),
        "half of them": GroundTruth(half),
        "edge of the same": GroundTruth(edge(ablations, paper)),
        "short training, no effects": short,
        "short training, paper's effects": replace(short, errors=paper),
        "ReLU gate 3 x noise, paper's effects": GroundTruth(paper, unstable={relu: 3.0}),
        # Claimed both better and worse, so that whatever it does may be a false finding.
        "max pooling 3.4 x noise, no effects": GroundTruth(none, unstable={maximum: 3.4}),
        "no squeeze 3.4 x noise, no effects": GroundTruth(none, unstable={unsqueezed: 3.4}),
    }
    for count in seeds:
        equal = (count,) * len(paper)
        yield from (Cell(name, truth, equal) for name, truth in truths.items())
        yield Cell("each network 3 x noise in turn, no effects", GroundTruth(none), equal, in_turn=True)
        new = GroundTruth(paper, taste=0.45, pool=10)
        yield Cell("new images, paper's effects", new, equal, Rules(estimand="population"))
        yield Cell("paper's effects, judged by study", GroundTruth(paper), equal, Rules(family="study"))
    enough = (ENOUGH,) * len(paper)
    yield Cell("ReLU gate 30 x noise, no effects", GroundTruth(none, unstable={relu: 30.0}), enough)
    yield Cell("no squeeze 30 x noise, no effects", GroundTruth(none, unstable={unsqueezed: 30.0}), enough)
    unequal = tuple(2 + (5 * place) % 8 for place in range(len(paper)))  # 2 to 9
    yield Cell("unequal seeds, no effects", GroundTruth(none), unequal)
    yield Cell("unequal seeds, paper's effects", GroundTruth(paper), unequal)


def edge(ablations: Sequence[Ablation], errors: dict[Arm, float]) -> dict[Arm, float]:
    """Move each arm that is claimed to equal the reference exactly to the margin, where the claim is just not true."""
    moved = dict(errors)
    for ablation in ablations:
        gain = errors[ablation.arm("plain")] - errors[ablation.arm(ablation.reference)]
        for claim in ablation.primary:
            for atom in claim.simple_atoms():
                if isinstance(atom, Equivalent):
                    for name in set(atom.arms) - {ablation.reference}:
                        moved[ablation.arm(name)] = errors[ablation.arm(ablation.reference)] + gain * Rules().margin_rho
    return moved


def simulate(ablations: Sequence[Ablation], cell: Cell, index: int, chunk: range) -> list[Tally]:
    """Simulate the studies `chunk` of a cell; the same numbers whatever process does it."""
    truth = cell.truth_of(chunk)
    simulator = Simulator(truth, np.random.default_rng([20170905, index]))
    order = tuple(cell.truth.errors)
    cost = {
        arm: total_cost(PAPER_NETWORK, arm.variant, in_channels=3, classes=PAPER_CLASSES, resolution=PAPER_RESOLUTION)
        for arm in order
    }
    tallies = []
    for number in chunk:
        sample = simulator.draw(cell.seeds, np.random.default_rng([20170905, index, 1 + number]))
        evidence = Evidence(order, sample, cell.rules, cost=cost, points=POINTS)
        tallies.append(tally(ablations, evidence, truth))
    return tallies


def tally(ablations: Sequence[Ablation], evidence: Evidence, truth: GroundTruth) -> Tally:
    """Judge one simulated study and compare with the truth."""
    errors = np.array([truth.errors[arm] for arm in evidence.arms])
    covered: dict[str, bool] = {}
    simultaneous, false, right = {}, {}, 0
    for ablation, judge in zip(ablations, judges_of(ablations, evidence), strict=True):
        inside: list[bool] = []
        for contrast in judge.family():
            found = evidence.difference(contrast)
            assert found is not None
            miss = abs(found.estimate - contrast.at(errors)) / found.se
            covered[f"{ablation.slug} {len(inside)}"] = bool(miss <= distributions.quantile(0.025, found.df))
            inside.append(bool(miss <= judge.times_se(found)))
        simultaneous[ablation.slug] = all(inside)
        false[ablation.slug] = 0
        for finding in judge.judge():
            if finding.claim.secondary or finding.verdict == "not resolved":
                continue
            said = [atom for atom in finding.atoms if atom.verdict == finding.verdict]
            if all(is_true(judge.contrasts, atom, errors) for atom in said):
                right += 1
            else:
                false[ablation.slug] += 1
    noise = evidence.noise
    assert noise is not None
    unstable = tuple(evidence.arms[arm].slug for arm in np.flatnonzero(noise.unstable))
    planted = tuple(arm.slug for arm in truth.unstable or {})
    return Tally(covered, simultaneous, false, right, unstable, planted)


def is_true(contrasts: TableContrasts, atom: AtomVerdict, errors: np.ndarray) -> bool:
    """Whether a verdict on an atom says what is the case."""
    if isinstance(atom.atom, Fewer):
        return True  # an exact count, checked elsewhere
    tested = contrasts.tested(atom.atom)
    gain = contrasts.gain.at(errors)
    if atom.verdict == "reproduced":
        return all(contrast.at(errors) > 1e-9 for contrast in tested.wanted)
    if isinstance(atom.atom, Superior):
        immaterial = gain > 0 and all(contrast.at(errors) > 1e-9 for contrast in tested.margin)
        said = atom.reason is not None and atom.reason.kind is Reason.IMMATERIAL
        return immaterial if said else tested.shown.at(errors) < -1e-9
    if isinstance(atom.atom, Equivalent):
        return any(contrast.at(errors) < -1e-9 for contrast in tested.margin)
    return gain > 0 and tested.shown.at(errors) < -1e-9


def summarise(cell: Cell, tallies: Sequence[Tally]) -> dict[str, object]:
    """One line of the table: rates over the simulated studies of a cell, and whether the nominal levels hold."""
    covered, together, false = (
        pd.DataFrame([getattr(tally, what) for tally in tallies]) for what in ("covered", "simultaneous", "false")
    )
    coverage, worst = covered.mean(), false.gt(0).mean()
    planted = any(tally.planted for tally in tallies)
    most = MOST_FALSE_UNSTABLE if planted else MOST_FALSE
    average, worst_rate = float(coverage.mean()), float(worst.max())
    return {
        "truth": cell.name,
        "seeds": str(cell.seeds[0]) if len(set(cell.seeds)) == 1 else f"{min(cell.seeds)} to {max(cell.seeds)}",
        "studies": len(tallies),
        "coverage": average,
        "least_coverage": float(coverage.min()),
        "simultaneous_coverage": float(together.mean().min()),
        "false_worst_table": worst_rate,
        "worst_table": worst.idxmax(),
        "false_any": float(false.any(axis=1).mean()),
        "right": float(np.mean([tally.right for tally in tallies])),
        "flagged": float(np.mean([set(each.planted) <= set(each.unstable) for each in tallies])) if planted else None,
        "promised": not planted or min(cell.seeds) >= ENOUGH,
        "holds": average >= LEAST_COVERAGE and worst_rate <= most,
    }


def calibrate(
    ablations: Sequence[Ablation], studies: int, seeds: Sequence[int], jobs: int, done: Callable[[float], None]
) -> pd.DataFrame:
    """Simulate `studies` studies of every cell with `jobs` processes; `done` hears the share that is finished.

    The same numbers come out whatever the number of processes.
    """
    todo = list(cells(ablations, seeds))
    chunks = [
        (index, range(start, min(start + CHUNK, studies)))
        for index in range(len(todo))
        for start in range(0, studies, CHUNK)
    ]
    found: dict[int, list[Tally]] = {index: [] for index in range(len(todo))}
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_begin_worker) as pool:
        tasks = [pool.submit(simulate, ablations, todo[index], index, chunk) for index, chunk in chunks]
        try:
            for number, ((index, _), task) in enumerate(zip(chunks, tasks, strict=True), 1):
                found[index] += task.result()
                done(number / len(chunks))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return pd.DataFrame([summarise(cell, found[index]) for index, cell in enumerate(todo)])


def _begin_worker() -> None:
    die_with_driver()
    threadpool_limits(1)
