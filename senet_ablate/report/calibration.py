"""The calibration as a page: how often intervals and verdicts on simulated studies were right."""

from __future__ import annotations

import pandas as pd

from senet_ablate.analysis.calibration import ENOUGH, LEAST_COVERAGE, MOST_FALSE, MOST_FALSE_UNSTABLE

COLUMNS = {
    "truth": "ground truth",
    "seeds": "seeds",
    "coverage": "coverage of 95 % intervals",
    "least_coverage": "least",
    "simultaneous_coverage": "simultaneous, worst table",
    "false_worst_table": "false finding, worst table",
    "false_any": "any false finding",
    "right": "findings right",
    "flagged": "unstable network flagged",
    "holds": "holds",
}


def to_markdown(frame: pd.DataFrame) -> str:
    """The calibration as a Markdown page."""
    cells_of = frame[list(COLUMNS)].rename(columns=COLUMNS)
    for name in cells_of.columns[2:-1]:
        places = 1 if name == "findings right" else 3
        cells_of[name] = ["" if value is None or pd.isna(value) else f"{value:.{places}f}" for value in cells_of[name]]
    cells_of["holds"] = [
        ("yes" if holds else "NO") if promised else "not promised"
        for holds, promised in zip(frame["holds"], frame["promised"], strict=True)
    ]
    table = cells_of.to_markdown(index=False, disable_numparse=True, colalign=["left"] + ["right"] * 9)
    studies = int(frame["studies"].iloc[0])
    return f"""# Calibration: is the printed confidence deserved?

Whole studies with a known ground truth, simulated image by image and judged by the code that judges real records;
{studies} studies a line, 17 networks each. "Holds": intervals cover in at least {LEAST_COVERAGE:.0%} of cases, and
at most {MOST_FALSE:.0%} of studies have a false finding in the worst table ({MOST_FALSE_UNSTABLE:.0%} with one unstable
network, promised from {ENOUGH} seeds on). Monte Carlo error of a share of 0.05 is
{100 * (0.05 * 0.95 / studies) ** 0.5:.1f} points.

{table}

- Noise of one run: 0.25 points on 10,000 images, over-dispersion 1.3; short training: 0.40, over-dispersion 4, runs of
  one seed correlated (0.4 of the run shift, the luck of 30 % of the images).
- "Edge of the same": each arm that is claimed to equal the reference lies exactly at the margin, a quarter of the
  gain away.
- "New images": each study sees other test images, arms find different images hard, and intervals are those
  for new images.
- "Judged by study": `family = "study"`, the level divided by all findings of a study instead of those of a table.
- Any false finding: in some table of the study.
- Findings right: of the paper's 15, verdicts that say what is the case.
"""
