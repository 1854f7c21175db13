"""A study in one line: what was trained, what SE gained, and what became of the paper's findings."""

from __future__ import annotations

from collections import Counter

from senet_ablate.analysis.study import Assessment
from senet_ablate.report.findings import WORDS, deciding

NO_RUNS = "not run"


def overview_markdown(assessment: Assessment) -> str:
    """The line under its headings, as a Markdown table. `senet-ablate report --fill` puts those of several together."""
    protocol, outcomes = assessment.pin.protocol, assessment.outcomes
    verdicts = Counter(
        WORDS[finding.verdict] if deciding(finding) or finding.verdict != "not resolved" else NO_RUNS
        for finding in assessment.all_findings
        if finding.ablation.table and not finding.claim.secondary
    )
    cells = {
        "study": f"`{outcomes.study.name}`",
        "protocol": f"`{protocol.name}`",
        "training images": f"{assessment.pin.data.n_train:,} of {protocol.images_name}, {protocol.data.resolution} px",
        "network": f"{protocol.network.backbone}, width {protocol.network.width}",
        "epochs": f"{protocol.recipe.epochs}",
        "variants": f"{len(outcomes.runs)}",
        "runs": f"{len(outcomes.records)}",
        "SE gain, points": _gain(assessment),
        **{verdict: f"{verdicts[verdict]}" for verdict in (*WORDS.values(), NO_RUNS)},
    }
    rows = (cells, [":--"] * len(cells), cells.values())
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _gain(assessment: Assessment) -> str:
    """Error without SE less error with the paper's block, and half of its 95 % interval."""
    judge = next((judge for judge in assessment.judges.values() if judge.ablation.claims), None)
    gain = judge.evidence.difference(judge.contrasts.gain) if judge else None
    unit = " nats" if assessment.rules.metric == "cross_entropy" else ""
    if judge is None or gain is None:
        return "–"
    sure = judge.half_width(judge.contrasts.gain) is not None
    return f"{gain.estimate:+.2f}{f' ± {gain.half_width:.2f}' if sure else ''}{unit}"
