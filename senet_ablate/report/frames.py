"""A study as pandas frames, for notebooks and scripts."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import pandas as pd

from senet_ablate.analysis.study import Assessment, assess
from senet_ablate.errors import UserError, look_up
from senet_ablate.report.findings import findings_frame
from senet_ablate.report.tables import build_table
from senet_ablate.results.plan import declared_tables
from senet_ablate.results.store import Study
from senet_ablate.spec.loading import declarations_dir


class StudyFrames:
    """The runs, tables and findings of one study; judged when first asked for. Make it with `load_study`."""

    def __init__(self, study: Study, declarations: Path) -> None:
        self.study, self.declarations = study, declarations

    @cached_property
    def assessment(self) -> Assessment:
        """The judged study."""
        return assess(declared_tables(self.declarations, [], self.study), self.study)

    def runs(self) -> pd.DataFrame:
        """A line per finished run: variant, seed, status, errors in percent, cross-entropy in nats, size, time."""
        lines = []
        for record in self.study.records():
            metrics = record.metrics
            lines.append(
                {
                    "run_id": record.run_id,
                    "variant": record.spec.variant.slug,
                    "seed": record.spec.seed,
                    "status": record.status,
                    "top1_err": metrics.top1_err if metrics else None,
                    "top5_err": metrics.top5_err if metrics else None,
                    "cross_entropy": metrics.cross_entropy if metrics else None,
                    "params": record.complexity.params,
                    "macs": record.complexity.macs,
                    "wall_s": record.provenance.wall_s,
                }
            )
        return pd.DataFrame(lines)

    def table(self, slug: str) -> pd.DataFrame:
        """One table by its name, such as `ratio` (Table 10): a line per row, as in the report's CSV.

        Raises:
            UserError: the study has no such table.
        """
        judge = look_up(self.assessment.judges, slug, f"study {self.study.name!r} has no table")
        return build_table(judge.ablation, self.assessment).frame

    def findings(self) -> pd.DataFrame:
        """A line per comparison of each finding: estimate, simultaneous interval, p-value, verdict."""
        return findings_frame(self.assessment)


def load_study(folder: str | Path, *, ablations: str | Path | None = None) -> StudyFrames:
    """Open a study's folder, such as `results/cifar10-lite`.

    Args:
        folder: the study's folder.
        ablations: folder of the declared tables; by default that of the working directory, else the package's.

    Raises:
        UserError: there is no study in the folder.

    Example:
        >>> study = load_study("results/cifar10-lite")  # doctest: +SKIP
        >>> study.table("ratio")[["label", "n", "top1_err_mean"]]  # doctest: +SKIP
    """
    study = Study(Path(folder))
    if study.pin() is None:
        raise UserError(f"{study.root}: no study in this folder (it has no study.json)")
    return StudyFrames(study, Path(ablations) if ablations else declarations_dir())
