"""A study in one line: what was trained, what SE gained, and what became of its findings."""

from __future__ import annotations

from collections import Counter

from senet_ablate.analysis.study import Assessment
from senet_ablate.report.findings import deciding
from senet_ablate.report.words import MISSING, WORDS, span
from senet_ablate.spec.claims import PLAIN


def overview_markdown(assessment: Assessment) -> str:
    """The line under its headings, as a Markdown table. `senet-ablate report --fill` puts those of several together."""
    protocol, outcomes = assessment.pin.protocol, assessment.outcomes
    told = [each for each in assessment.primary if deciding(each) or each.verdict != "not resolved"]
    verdicts = Counter(WORDS[finding.verdict] for finding in told)
    cells = {
        "study": f"`{outcomes.study.name}`",
        "data": f"{protocol.images_name}, {protocol.data.resolution} px",
        "network": protocol.network.in_words(),
        "epochs": f"{protocol.recipe.epochs}",
        "variants": f"{len(outcomes.runs)}",
        "seeds": span([len(records) for records in outcomes.runs.values()] or [0]),
        "no SE, %": _plain_error(assessment),
        "SE gain, points": _gain(assessment),
        **{verdict: f"{verdicts[verdict]}" for verdict in WORDS.values()},
    }
    rows = (cells, [":--"] * len(cells), cells.values())
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _plain_error(assessment: Assessment) -> str:
    """Mean error of the network without SE."""
    judge = assessment.first
    found = judge.evidence.difference(judge.contrasts.mean(PLAIN)) if judge else None
    return MISSING if found is None else f"{found.estimate:.2f}"


def _gain(assessment: Assessment) -> str:
    """Error without SE less error with the paper's block, and half of its 95 % interval."""
    judge = assessment.first
    gain = judge.evidence.difference(judge.contrasts.gain) if judge else None
    if judge is None or gain is None:
        return MISSING
    sure = judge.half_width(judge.contrasts.gain) is not None
    unit = " nats" if assessment.rules.metric == "cross_entropy" else ""
    return f"{gain.estimate:+.2f}{f' ± {gain.half_width:.2f}' if sure else ''}{unit}"
