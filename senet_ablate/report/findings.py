"""The findings of a study in sentences and tables: each verdict, its numbers, and what is still open."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from senet_ablate.analysis.study import Assessment, gains_over_noise, rank_agreements, share_of_gain
from senet_ablate.analysis.verdicts import WITHIN_NOISE_Z, AtomVerdict, Explanation, FindingVerdict, Reason
from senet_ablate.report.escape import csv_text
from senet_ablate.spec.claims import Equivalent, Fewer, Metric, NoDifference, Retains, Superior

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


def describe(reason: Explanation) -> str:
    """A reason in words, without a full stop."""
    arms = ", ".join(reason.arms)
    runs = zip(reason.arms, reason.diverged, strict=False)
    diverged = ", ".join(f"{arm} diverged in {lost} of {total} runs" for arm, (lost, total) in runs)
    margin = f"{reason.points:g} points" if reason.points is not None else f"{reason.share or 0:.0%} of the SE gain"
    match reason.kind:
        case Reason.REVERSED:
            return "reversed"
        case Reason.IMMATERIAL:
            return f"immaterial: the difference is less than {margin}"
        case Reason.TOO_DIFFERENT:
            return f"too different: by more than {margin}"
        case Reason.LOSES_GAIN:
            return f"keeps less than {reason.share:.0%} of the gain"
        case Reason.FALSE_ALARM:
            return "a false alarm: these runs scatter more than told"
        case Reason.WITHIN_NOISE:
            return "within the noise"
        case Reason.WIDE_INTERVAL:
            return f"the interval is wider than {margin}"
        case Reason.NO_GAIN:
            return "no SE gain to measure against"
        case Reason.NOT_RUN:
            return f"not run: {arms}"
        case Reason.ONE_SEED:
            return f"one seed: {arms}"
        case Reason.SEEDS_WITHOUT_EFFECT:
            return f"seeds have no effect: {arms}"
        case Reason.UNSTABLE:
            return f"unstable: {diverged or arms}"
        case Reason.BY_INSTABILITY:
            return f"by instability: {diverged}"
        case Reason.CONDITIONAL_ON_CONVERGENCE:
            return f"conditional on convergence: {reason.diverged[0][0]} runs of {arms} diverged"
        case Reason.EXACT_COUNT:
            what = {"params": "parameters", "macs": "multiply-adds"}[reason.quantity]
            return f"exact count: {abs(reason.fewer):,} {'fewer' if reason.fewer > 0 else 'more'} {what}"
        case Reason.UNDECLARED_DIFFERENCE:
            told = (f"{each.row} in {each.field} ({each.here}, not {each.reference})" for each in reason.undeclared)
            return f"arms differ in what is not declared: {', '.join(told)}"
        case Reason.REACHED_EARLIER:
            return f"reached at look {reason.look}"


def reason_in_words(verdict: AtomVerdict | FindingVerdict) -> str:
    """Why a verdict was given, in words; empty where the numbers beside it say it."""
    reasons = verdict.reasons if isinstance(verdict, FindingVerdict) else (verdict.reason,)
    return "; ".join(describe(reason) for reason in reasons if reason is not None)


def _reason(finding: FindingVerdict) -> str:
    said = reason_in_words(finding)
    return f" ({said})" if said else ""


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
    return f"; {'; '.join(map(describe, flags))}" if flags else ""


METRIC_NAMES: dict[Metric, str] = {
    "top1_err": "top-1 error",
    "top5_err": "top-5 error",
    "cross_entropy": "cross-entropy",
}


def findings_frame(assessment: Assessment) -> pd.DataFrame:
    """One line per atom with full precision: ids, statement, paper's value and z, estimate, interval, p, verdicts."""
    lines = []
    for slug, findings in assessment.findings.items():
        judge = assessment.judges[slug]
        for number, finding in enumerate(findings):
            others = {f"verdict_{metric}": tables[slug][number].verdict for metric, tables in assessment.others.items()}
            for atom in finding.atoms:
                share = None
                if isinstance(atom.atom, Superior) and atom.estimate is not None:
                    share = share_of_gain(judge, judge.contrasts.difference(atom.atom.worse, atom.atom.better))
                lines.append(
                    {
                        "table": finding.ablation.table,
                        "finding": finding.claim.id,
                        "secondary": finding.claim.secondary,
                        "statement": finding.claim.statement,
                        "source": finding.claim.source,
                        "finding_verdict": finding.verdict,
                        "finding_reason": reason_in_words(finding),
                        **others,
                        "atom": str(atom.atom),
                        "kind": atom.atom.kind,
                        "verdict": atom.verdict,
                        "reason": reason_in_words(atom),
                        "paper_value": atom.paper_value,
                        "paper_z": atom.paper_z,
                        "estimate": atom.estimate,
                        "ci_low": atom.low,
                        "ci_high": atom.high,
                        "se": atom.se,
                        "df": atom.df,
                        "p_one_sided": atom.p,
                        "p_adjusted": atom.p_adjusted,
                        "confidence": atom.confidence,
                        "level": finding.level,
                        "holds_for_new_images": atom.new_images,
                        "rho_star": atom.rho_star,
                        "more_seeds": atom.more_seeds,
                        "share_of_gain": share.share if share else None,
                        "share_low": share.low if share else None,
                        "share_high": share.high if share else None,
                        "paper_share": share.paper if share else None,
                        "n_per_arm": " ".join(map(str, atom.n)),
                        "flags": "; ".join(map(describe, atom.flags)),
                    }
                )
    return pd.DataFrame(lines)


def to_csv(assessment: Assessment) -> str:
    """The frame with six digits, which processors agree on; missing numbers empty."""
    return csv_text(findings_frame(assessment), float_format="%.6g")


def to_markdown(assessment: Assessment) -> str:
    """The page: verdicts at a glance, each finding in words, the gain over the noise, agreement in order, the plan."""
    # Those of the paper; what our own tables ask stands with them below.
    family = [f for f in assessment.all_findings if f.ablation.table and not f.claim.secondary]
    counts = Counter(finding.verdict for finding in family)
    verb = "is" if counts["reproduced"] == 1 else "are"
    paragraphs = [
        f"# Findings ({assessment.outcomes.study.name})",
        f"Of {len(family)} findings of the paper {counts['reproduced']} {verb} reproduced, {counts['contradicted']} "
        f"contradicted and {counts['not resolved']} not resolved at this budget. In each table at most "
        f'{assessment.rules.alpha:.0%} of studies like this one would show a false "reproduced", and at most as many a '
        'false "contradicted". What is not resolved is not "no difference".',
        _glance(assessment, family),
        *_by_table(assessment),
        "## What the runs can decide",
        "\n".join(f"- {line}" for line in power_lines(assessment)),
        "## Agreement with the paper in order",
        _ranks(assessment),
        "## Plan",
        _plan(assessment),
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def _glance(assessment: Assessment, family: list[FindingVerdict]) -> str:
    lines = []
    for finding in family:
        line = {
            "": MARK[finding.verdict],
            "finding": finding.claim.id,
            "statement": finding.claim.statement,
            "verdict": finding.verdict,
        }
        slug = finding.ablation.slug
        number = assessment.findings[slug].index(finding)
        line |= {
            f"by {METRIC_NAMES[metric]}": tables[slug][number].verdict for metric, tables in assessment.others.items()
        }
        lines.append(line | {"needed, if the paper is right": to_decide(finding)})
    return pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)


def _by_table(assessment: Assessment) -> list[str]:
    paragraphs = []
    for findings in assessment.findings.values():
        if not findings:
            continue
        told = "\n".join(f"- {in_words(finding)}" for finding in findings)
        paragraphs += [f"## {findings[0].ablation.heading}", told]
    return paragraphs


def power_lines(assessment: Assessment) -> list[str]:
    """The gain over the noise, by each metric: the quantity that decides what a study can resolve."""
    found = gains_over_noise(assessment)
    if found is None:
        return ["No table declares a finding."]
    return [
        f"By {METRIC_NAMES[each.metric]} the SE gain is {each.gain:+.3g} and a difference of two runs scatters by "
        f"{each.sd_of_difference:.3g}: gain over noise {each.ratio:+.2f}, over-dispersion {each.phi:.1f}."
        for each in found
    ] or ["No two networks have runs to compare."]


def rank_cells(assessment: Assessment) -> list[dict[str, str]]:
    """Agreement of each table's order with the paper's, as text: Kendall's tau-b, its interval, the noise ceiling."""
    return [
        {
            "table": ablation.heading if ablation else "All networks",
            "networks": str(found.arms),
            "tau": f"{found.tau:+.2f}",
            "90 % interval": f"{found.low:+.2f} to {found.high:+.2f}",
            "noise ceiling": f"{found.ceiling:.2f}",
        }
        for ablation, found in rank_agreements(assessment)
    ]


RANKS_NOTE = (
    "Kendall's tau-b between our mean errors and the paper's. The ceiling is what runs as noisy as these would reach "
    "if the paper's figures were the exact truth; it is no verdict."
)


def _ranks(assessment: Assessment) -> str:
    cells = rank_cells(assessment)
    if not cells:
        return "No table has runs to rank."
    sides = ["left"] + ["right"] * 4
    return f"{pd.DataFrame(cells).to_markdown(index=False, disable_numparse=True, colalign=sides)}\n\n{RANKS_NOTE}"


def plan_sentence(assessment: Assessment) -> str:
    """The plan and the rules by which findings are judged."""
    rules, plan = assessment.rules, assessment.plan
    margin = f"{rules.margin_abs:g} points" if rules.margin_abs else f"{rules.margin_rho:.0%} of the SE gain"
    counted = sum(isinstance(atom.atom, Fewer) for finding in assessment.all_findings for atom in finding.atoms)
    return (
        f"Plan {plan.digest}{' of ' + plan.written if plan.written else ' (no file)'}: {rules.looks} "
        f'{"look" if rules.looks == 1 else "looks"}, alpha {rules.alpha:g} by {rules.family}, "the same" is within '
        f"{margin}, {rules.pairing} credit for seeds in common, verdicts for {_ESTIMAND[rules.estimand]}; exact "
        f"counts: {counted}."
    )


def _plan(assessment: Assessment) -> str:
    told = "\n".join(f"- {line}" for line in assessment.deviations) or "- Deviations from the plan: none."
    audit = "\n".join(f"- {line}" for line in assessment.cautions)
    return f"{plan_sentence(assessment)}\n\n{told}" + (f"\n{audit}" if audit else "")


_ESTIMAND = {"benchmark": "these test images", "population": "new images of the same kind"}
