"""The findings of a study in sentences and tables: each verdict, its numbers, and what is still open."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple
from math import comb

import pandas as pd

from senet_ablate.analysis.exact import LEAST_UNSTABLE
from senet_ablate.analysis.study import Assessment, gains_over_noise, share_of_gain
from senet_ablate.analysis.verdicts import (
    FEW_SEEDS_RATE,
    STUDY_RATE,
    WITHIN_NOISE_Z,
    AtomVerdict,
    Explanation,
    FindingVerdict,
    Reason,
)
from senet_ablate.report.render import render
from senet_ablate.report.words import MARK, METRICS, WORDS, counted, percent, span
from senet_ablate.spec.claims import Equivalent, Fewer, Retains, Superior


def in_words(finding: FindingVerdict) -> str:
    """One finding as a line of Markdown: sentence, verdict, the numbers that decided, and what it would take."""
    return f"**{finding.claim.id}** {finding.claim.statement}: **{WORDS[finding.verdict]}**{why(finding)}"


def why(finding: FindingVerdict) -> str:
    """What stands behind a verdict, as the rest of a sentence."""
    told = "; ".join(part for part in (_parts(finding), reason_in_words(finding)) if part)
    phrases = _numbers(finding)
    needed = to_decide(finding)
    if finding.verdict != "not resolved":
        phrases.append(f"for new images: {finding.new_images}")
    elif needed:
        phrases.append(
            f"decided by {needed}" if "if all" in needed else f"{needed} would decide the paper's difference"
        )
    known = [atom.paper_z for atom in finding.atoms if isinstance(atom.atom, Superior) and atom.paper_z is not None]
    if any(z < WITHIN_NOISE_Z for z in known):
        phrases.append("the published difference is itself within run noise")
    phrases += map(describe, dict.fromkeys(flag for atom in finding.atoms for flag in atom.flags))
    said = (f" ({told})" if told else "") + "".join(f"; {phrase}" for phrase in phrases)
    family = " Outside the family with guaranteed error rate." if finding.claim.secondary else ""
    return f"{said}.{family}"


REASONS = {
    Reason.REVERSED: "reversed: {apart}",
    Reason.SEPARATED: "{apart}",
    Reason.IMMATERIAL: "immaterial: the difference is less than {margin}",
    Reason.TOO_DIFFERENT: "too different: by more than {margin}",
    Reason.LOSES_GAIN: "keeps less than {share} of the gain",
    Reason.FALSE_ALARM: "a false alarm: these runs vary more than estimated",
    Reason.WITHIN_NOISE: "within the noise",
    Reason.WIDE_INTERVAL: "the interval is wider than {margin}",
    Reason.NO_GAIN: "no SE gain to measure against",
    Reason.NOT_RUN: "not run: {arms}",
    Reason.ONE_SEED: "one seed: {arms}",
    Reason.SEEDS_WITHOUT_EFFECT: "seeds have no effect: {arms}",
    Reason.UNSTABLE: "unstable: {unstable}",
    Reason.BY_INSTABILITY: "{arms} diverged or collapsed in {lost[0]} runs, all other networks in {lost[1]}",
    Reason.COLLAPSED: "{lost[0]} runs of {arms} collapsed",
    Reason.CONDITIONAL_ON_CONVERGENCE: "conditional on convergence: {diverged[0][0]} runs of {arms} diverged",
    Reason.EXACT_COUNT: "exact count: {count}",
    Reason.UNDECLARED_DIFFERENCE: "arms differ in what is not declared: {undeclared}",
    Reason.REACHED_EARLIER: "reached at interim analysis {look}",
    Reason.GIVEN_UP: "the verdict of interim analysis {look} is given up: its comparisons now say the opposite",
}


def describe(reason: Explanation) -> str:
    """A reason in words, without a full stop."""
    arms, share = ", ".join(reason.arms), f"{reason.share or 0:.0%}"
    lost = [f"{lost} of {total}" for lost, total in reason.diverged]
    diverged = ", ".join(f"{arm} diverged in {some} runs" for arm, some in zip(reason.arms, lost, strict=False))
    quantity = {"params": "parameters", "macs": "multiply-adds"}[reason.quantity]
    undeclared = (f"{each.row} in {each.field} ({each.here}, not {each.reference})" for each in reason.undeclared)
    words = {
        "arms": arms,
        "share": share,
        "margin": f"{reason.points:g} points" if reason.points is not None else f"{share} of the SE gain",
        "lost": lost,
        "diverged": reason.diverged,
        "unstable": diverged or arms,
        "count": f"{abs(reason.fewer):,} {'fewer' if reason.fewer > 0 else 'more'} {quantity}",
        "undeclared": ", ".join(undeclared),
        "look": reason.look,
        "apart": _apart(reason) if any(reason.runs) else "",
    }
    return REASONS[reason.kind].format(**words).removesuffix(": ")


FACTORS = {
    "se.squeeze": "the squeeze",
    "se.gate": "the gate",
    "se.reduction": "the reduction ratio",
    "placement.stages": "the choice of stages",
    "placement.position": "the position",
}


def _apart(reason: Explanation) -> str:
    worse, better = reason.runs
    factor = FACTORS.get(reason.factor, "the block")
    return (
        f"each of {worse} runs is worse than each of {better}; 1 in {comb(worse + better, worse):,} if {factor} made "
        "no difference"
    )


def reason_in_words(verdict: AtomVerdict | FindingVerdict) -> str:
    """Why a verdict was given, in words; empty where the numbers beside it say it."""
    reasons = verdict.reasons if isinstance(verdict, FindingVerdict) else (verdict.reason,)
    return "; ".join(describe(reason) for reason in reasons if reason is not None)


def _parts(finding: FindingVerdict) -> str:
    """How many of a conjunction's comparisons hold, fail and are open; empty for a single one or if none is decided."""
    counts: Counter[str] = Counter(atom.verdict for atom in finding.atoms)
    total = len(finding.atoms)
    if total == 1 or counts["not resolved"] == total:
        return ""
    if counts["reproduced"] == total:
        return f"all {total} comparisons hold"
    told = [
        counted(counts[verdict], one, several)
        for verdict, one, several in (
            ("contradicted", "fails", "fail"),
            ("reproduced", "holds", "hold"),
            ("not resolved", "open", "open"),
        )
        if counts[verdict]
    ]
    first, _, what = told[0].partition(" ")
    return ", ".join([f"{first} of {total} comparisons {what}", *told[1:]])


def deciding(finding: FindingVerdict) -> AtomVerdict | None:
    """The atom to quote: the first that says what the finding says, the least certain one first; None without runs."""
    measured = [atom for atom in finding.atoms if atom.estimate is not None]
    said = [atom for atom in measured if atom.verdict == finding.verdict] or measured
    return max(said, key=lambda atom: -1.0 if atom.p is None else atom.p, default=None)


def _numbers(finding: FindingVerdict) -> list[str]:
    """The numbers that decided; none without runs."""
    atom = deciding(finding)
    if atom is None or atom.estimate is None:
        return []
    what = "points above the share to keep" if isinstance(atom.atom, Retains) else "difference"
    quoted = f" ({atom.atom})" if sum(not isinstance(each.atom, Fewer) for each in finding.atoms) > 1 else ""
    bound = ""
    if atom.bound is not None and atom.bound_confidence is not None:
        bound = f", at least {atom.bound:+.2f} (one-sided {percent(atom.bound_confidence)} bound, which decided)"
    interval = ""
    if atom.low is not None and atom.high is not None:
        interval = f", simultaneous {percent(finding.coverage)} interval {atom.low:+.2f} to {atom.high:+.2f}"
    told = [f"{what}{quoted} {atom.estimate:+.2f}{bound}{interval}, n = {span(atom.n)}"]
    if isinstance(atom.atom, Superior) and finding.verdict == "not resolved" and atom.confidence is not None:
        sure = atom.confidence
        shown = f"{sure:.2f}" if 0.005 <= sure < 0.995 else "over 0.99" if sure > 0.5 else "under 0.01"
        whose = "claimed" if atom.paper_value is None else "in the paper"
        told.append(f"direction as {whose} with confidence {shown}")
    same = [each.rho_star for each in finding.atoms if isinstance(each.atom, Equivalent)]
    shares = [share for share in same if share is not None]
    if shares and len(shares) == len(same):
        told.append(f"equal to within {max(shares):.0%} of the SE gain")
    return told


def to_decide(finding: FindingVerdict) -> str:
    """What would decide an open finding, if the paper's difference is true; empty where that cannot be said."""
    if finding.verdict != "not resolved":
        return ""
    open_atoms = [atom for atom in finding.atoms if atom.verdict == "not resolved"]
    if any(atom.p is None or atom.paper_value is None for atom in open_atoms):
        return ""
    if any(atom.more_seeds is None for atom in open_atoms):
        return "more seeds than are practical"
    most = max(open_atoms, key=lambda atom: atom.more_seeds or 0)
    seeds = counted(most.more_seeds or 0, "more seed of each", "more seeds of each")
    return f"{seeds}, if all runs stay apart as they are" if most.if_apart else f"about {seeds}"


SHARE_COLUMNS = ("share_of_gain", "share_low", "share_high", "paper_share")


def findings_frame(assessment: Assessment) -> pd.DataFrame:
    """One line per atom with full precision: ids, statement, paper's value and z, estimate, interval, p, verdicts."""
    lines = []
    for finding in assessment.all_findings:
        judge = assessment.judges[finding.ablation.slug]
        others = {f"verdict_{key}": verdict for key, verdict in assessment.by_other_metrics(finding).items()}
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
                    "finding_parts": _parts(finding),
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
                    "bound": atom.bound,
                    "se": atom.se,
                    "df": atom.df,
                    "p_one_sided": atom.p,
                    "p_adjusted": atom.p_adjusted,
                    "confidence": atom.confidence,
                    "level": finding.level,
                    "holds_for_new_images": atom.new_images,
                    "rho_star": atom.rho_star,
                    "more_seeds": atom.more_seeds,
                    **dict(zip(SHARE_COLUMNS, astuple(share) if share else (None,) * 4, strict=True)),
                    "n_per_arm": " ".join(map(str, atom.n)),
                    "flags": "; ".join(map(describe, atom.flags)),
                }
            )
    return pd.DataFrame(lines)


def to_markdown(assessment: Assessment) -> str:
    """The page: verdicts at a glance, each finding in words, the gain over the noise, the plan."""
    judged = [(ablation.heading, assessment.findings[ablation.slug]) for ablation in assessment.about]
    return render(
        "findings.md.j2",
        study=assessment.outcomes.study.name,
        counts=counts_in_words(assessment),
        promise=promise(assessment),
        glance=_glance(assessment),
        shared=shared_runs(assessment),
        tables=[(heading, list(map(in_words, found))) for heading, found in judged if found],
        power=power_lines(assessment),
        plan=plan_sentence(assessment),
        remarks=[*(assessment.deviations or ["Deviations from the plan: none."]), *assessment.cautions],
    )


def family(assessment: Assessment) -> list[FindingVerdict]:
    """The findings of the paper's tables that the study is about, else those of its tables of ours."""
    found = assessment.primary
    return [finding for finding in found if finding.ablation.table] or found


def family_name(assessment: Assessment) -> str:
    """What those findings are."""
    return "findings of the paper" if any(each.ablation.table for each in family(assessment)) else "findings"


def counts_in_words(assessment: Assessment) -> str:
    """How many findings hold, fail and are open."""
    found = family(assessment)
    counts = Counter(finding.verdict for finding in found)
    holds, fails = counted(counts["reproduced"], "holds", "hold"), counted(counts["contradicted"], "fails", "fail")
    still_open = counted(counts["not resolved"], "is", "are")
    return f"Of {len(found)} {family_name(assessment)} {holds} here, {fails} here and {still_open} open at this budget."


def promise(assessment: Assessment) -> str:
    """How often such verdicts are wrong: by the rules, and in simulated studies."""
    rules = assessment.rules
    where = "In each table at" if rules.family == "table" else "At"
    told = (
        f'{where} most {rules.alpha:.0%} of studies like this one would show a false "holds", and at most as many a '
        'false "fails".'
    )
    if rules.family == "table":
        told += f" In simulated studies without any effect, about one in {1 / STUDY_RATE:.0f} shows some false finding."
    if _few_seeds(assessment):
        told += (
            f" Where networks have fewer than {LEAST_UNSTABLE} seeds, one of three times the run-to-run standard "
            f"deviation raises the share in its table to about {FEW_SEEDS_RATE:.0%}."
        )
    if assessment.others:
        told += " Verdicts by another metric add the same error rate again."
    return f'{told} What is open is not "no difference".'


def _few_seeds(assessment: Assessment) -> bool:
    """Whether a finding is decided although an arm of it has too few seeds to tell whether it is unstable."""
    decided = [finding for finding in family(assessment) if finding.verdict != "not resolved"]
    return any(1 < count < LEAST_UNSTABLE for finding in decided for atom in finding.atoms for count in atom.n)


def shared_runs(assessment: Assessment) -> list[str]:
    """Which comparisons share runs, among tables and with other studies; empty where none do."""
    about = [ablation for ablation in assessment.about if ablation.claims]
    uses = Counter(
        arm
        for ablation in about
        for arm in {ablation.arm(name) for claim in ablation.claims for name in (*claim.arms, ablation.reference)}
    )
    runs = assessment.outcomes.runs
    common = [f"{arm.slug} ({len(runs[arm])}) in {uses[arm]}" for arm in runs if uses[arm] > 1]
    told = []
    if common:
        among = f"of {len(about)} tables, the runs of {', '.join(common)}"
        told.append(f"Tables share runs, so their findings are not independent: {among}.")
    if assessment.shared_with:
        others = ", ".join(f"{count} with {name}" for name, count in assessment.shared_with.items())
        total = len(assessment.outcomes.records)
        told.append(f"Of {total} runs this study shares {others}: their findings are not independent.")
    return told


def _glance(assessment: Assessment) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "": MARK[finding.verdict],
            "finding": finding.claim.id,
            "statement": finding.claim.statement,
            "verdict": WORDS[finding.verdict],
            **{
                f"by {METRICS[metric].name}": WORDS[verdict]
                for metric, verdict in assessment.by_other_metrics(finding).items()
            },
            "needed, if the paper is right": to_decide(finding),
        }
        for finding in family(assessment)
    )


def power_lines(assessment: Assessment) -> list[str]:
    """The gain over the noise, by each metric: the quantity that decides what a study can resolve."""
    found = gains_over_noise(assessment)
    if found is None:
        return ["No table declares a finding."]
    return [
        f"By {METRICS[each.metric].name} the SE gain is {each.gain:+.3g}, the standard deviation of a difference of "
        f"two runs {each.sd_of_difference:.3g}: gain over noise {each.ratio:+.2f}, over-dispersion {each.phi:.1f}."
        for each in found
    ] or ["No two networks have runs to compare."]


def plan_sentence(assessment: Assessment) -> str:
    """The plan and the rules by which findings are judged."""
    rules, plan = assessment.rules, assessment.plan
    margin = f"{rules.margin_abs:g} points" if rules.margin_abs else f"{rules.margin_rho:.0%} of the SE gain"
    counted = sum(isinstance(atom.atom, Fewer) for finding in assessment.all_findings for atom in finding.atoms)
    return (
        f"Plan {plan.digest}{' of ' + plan.written if plan.written else ' (no file)'}: {rules.looks} "
        f'{"analysis" if rules.looks == 1 else "analyses"}, alpha {rules.alpha:g} by {rules.family}, "the same" is '
        f"within {margin}, {rules.pairing} credit for seeds in common, verdicts for {_ESTIMAND[rules.estimand]}; exact "
        f"counts: {counted}."
    )


_ESTIMAND = {"benchmark": "these test images", "population": "new images of the same kind"}
