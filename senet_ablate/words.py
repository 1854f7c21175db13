"""Verdicts in sentences, as a careful author would put them: numbers, confidence, and what is still open."""

from __future__ import annotations

from senet_ablate.analysis.verdicts import WITHIN_NOISE_Z, AtomVerdict, FindingVerdict
from senet_ablate.spec.claims import Equivalent, Fewer, NoDifference, Retains, Superior

MARK = {"reproduced": "✓", "contradicted": "✗", "not resolved": "?"}


def in_words(finding: FindingVerdict) -> str:
    """One finding as a line of Markdown: sentence, verdict, the numbers that decided, and what it would take."""
    return f"**{finding.claim.id}** {finding.claim.statement}: **{finding.verdict}**{why(finding)}"


def why(finding: FindingVerdict) -> str:
    """What stands behind a verdict, as the rest of a sentence."""
    parts = [
        _reason(finding),
        _numbers(finding),
        _new_images(finding),
        _needed(finding),
        _paper(finding),
        _flags(finding),
    ]
    said = "".join(part for part in parts if part)
    family = " Outside the family with guaranteed error rate." if finding.claim.secondary else ""
    return f"{said}.{family}"


def percent(share: float) -> str:
    """A share as it is printed: `95 %`, `98.45 %`."""
    return f"{100 * share:.4g} %"


def _reason(finding: FindingVerdict) -> str:
    return f" ({finding.reason})" if finding.reason else ""


def deciding(finding: FindingVerdict) -> AtomVerdict | None:
    """The atom to quote: the first that says what the finding says, the least certain one first; None without runs."""
    measured = [atom for atom in finding.atoms if atom.estimate is not None]
    said = [atom for atom in measured if atom.verdict == finding.verdict] or measured
    return max(said, key=lambda atom: -1.0 if atom.p is None else atom.p, default=None)


def _numbers(finding: FindingVerdict) -> str:
    atom = deciding(finding)
    if atom is None or atom.estimate is None or atom.low is None or atom.high is None:
        return ""
    counts = f"{min(atom.n)} to {max(atom.n)}" if len(set(atom.n)) > 1 else str(atom.n[0])
    what = {
        Superior: "difference",
        Equivalent: "difference",
        Retains: "points above the share to keep",
        NoDifference: "difference",
    }.get(type(atom.atom), "")
    quoted = f" ({atom.atom})" if len([a for a in finding.atoms if not isinstance(a.atom, Fewer)]) > 1 else ""
    interval = f"simultaneous {percent(finding.coverage)} interval {atom.low:+.2f} to {atom.high:+.2f}"
    text = f"; {what}{quoted} {atom.estimate:+.2f}, {interval}, n = {counts}"
    if isinstance(atom.atom, Superior) and finding.verdict == "not resolved" and atom.confidence is not None:
        sure = atom.confidence
        shown = f"{sure:.2f}" if 0.005 <= sure < 0.995 else "over 0.99" if sure > 0.5 else "under 0.01"
        whose = "claimed" if atom.paper_value is None else "in the paper"
        text += f"; direction as {whose} with confidence {shown}"
    shares = [a.rho_star for a in finding.atoms if isinstance(a.atom, Equivalent)]
    if shares and all(share is not None for share in shares):
        text += f"; equal to within {max(share for share in shares if share is not None):.0%} of the SE gain"
    return text


def _new_images(finding: FindingVerdict) -> str:
    if finding.verdict == "not resolved":
        return ""
    return f"; for new images: {finding.new_images}"


def to_decide(finding: FindingVerdict) -> str:
    """What would decide an open finding, if the paper's difference is true; empty where that cannot be said."""
    if finding.verdict != "not resolved":
        return ""
    open_atoms = [atom for atom in finding.atoms if atom.verdict == "not resolved"]
    if any(atom.p is None or atom.paper_value is None for atom in open_atoms):
        return ""
    counts = [atom.more_seeds for atom in open_atoms]
    if any(count is None for count in counts):
        return "no affordable number of seeds"
    return f"about {max(count for count in counts if count is not None)} more seeds of each"


def _needed(finding: FindingVerdict) -> str:
    needed = to_decide(finding)
    return f"; {needed} would decide the paper's difference" if needed else ""


def _paper(finding: FindingVerdict) -> str:
    weak = [
        atom
        for atom in finding.atoms
        if isinstance(atom.atom, Superior) and atom.paper_z is not None and atom.paper_z < WITHIN_NOISE_Z
    ]
    return "; the published difference is itself within run noise" if weak else ""


def _flags(finding: FindingVerdict) -> str:
    flags = list(dict.fromkeys(flag for atom in finding.atoms for flag in atom.flags))
    return f"; {'; '.join(flags)}" if flags else ""
