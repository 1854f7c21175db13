"""The calibration as a page: how often intervals and verdicts on simulated studies were right."""

from __future__ import annotations

import pandas as pd

from senet_ablate.analysis.calibration import ENOUGH, LEAST_COVERAGE, MOST_FALSE, MOST_FALSE_UNSTABLE
from senet_ablate.report.render import render

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
    text = frame[list(COLUMNS)].rename(columns=COLUMNS)
    for name in text.columns[2:-1]:
        places = 1 if name == "findings right" else 3
        text[name] = ["" if value is None or pd.isna(value) else f"{value:.{places}f}" for value in text[name]]
    text["holds"] = [
        ("yes" if holds else "NO") if promised else "not promised"
        for holds, promised in zip(frame["holds"], frame["promised"], strict=True)
    ]
    return render(
        "calibration.md.j2",
        text=text,
        studies=int(frame["studies"].iloc[0]),
        least_coverage=f"{LEAST_COVERAGE:.0%}",
        most_false=f"{MOST_FALSE:.0%}",
        most_false_unstable=f"{MOST_FALSE_UNSTABLE:.0%}",
        enough=ENOUGH,
    )
