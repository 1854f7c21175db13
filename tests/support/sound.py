"""Invented runs that are possible: metrics follow from the images, losses fit outcomes, the cost is the network's."""

from __future__ import annotations

from typing import Any

import numpy as np
from helpers import CURVE, FACTS, PROTOCOL, SE, make_record

from senet_ablate.results.records import CurvePoint, Metrics, Predictions, RunRecord, curve_csv, digests
from senet_ablate.results.store import RunFolder, Study
from senet_ablate.spec.cost import total_cost
from senet_ablate.spec.network import Variant
from senet_ablate.spec.protocol import Protocol


def sound_run(
    variant: Variant = SE,
    seed: int = 0,
    wrong: int | None = 20,
    *,
    protocol: Protocol = PROTOCOL,
    curve: list[CurvePoint] = CURVE,
    fingerprint: str = FACTS.fingerprint,
    n_test: int = FACTS.n_test,
    draw: int = 0,
    **provenance: Any,
) -> tuple[RunRecord, dict[str, bytes]]:
    """A record and its files; `wrong` of the images are, None is a run that diverged; another `draw` has others."""
    record = make_record(variant, seed, None, protocol=protocol, fingerprint=fingerprint, **provenance)
    files = {"curve.csv": curve_csv(curve).encode()}
    metrics = None
    if wrong is not None:
        rng = np.random.default_rng([sum(map(ord, record.run_id)), draw])
        missed = rng.permutation(np.arange(n_test) < wrong)
        losses = np.where(missed, 1.0, 0.0) + rng.random(n_test)
        files["predictions.npz"] = Predictions(missed, losses, None).to_bytes()
        metrics = Metrics(top1_err=100 * wrong / n_test, top5_err=None, cross_entropy=float(losses.mean()))
    shape = {"in_channels": FACTS.channels, "classes": FACTS.classes, "resolution": protocol.data.resolution}
    cost = total_cost(protocol.network, variant, **shape)
    made = {
        "n_test": n_test,
        "status": "diverged" if metrics is None else "ok",
        "metrics": metrics,
        "complexity": cost,
        "sha256": digests(files),
    }
    return record.model_copy(update=made), files


def write_sound(study: Study, *args: Any, **fields: Any) -> RunFolder:
    """Put such a run where it belongs."""
    record, files = sound_run(*args, **fields)
    folder = study.run(record.run_id)
    folder.finish(record, files)
    return folder


def begun(study: Study) -> Study:
    """A study that is pinned to the tests' protocol and images."""
    study.begin(PROTOCOL, FACTS)
    return study
