"""The `plan` command: seeds for a budget, rules, the plan file that `run` and `status` follow, and further looks."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import FACTS, PLAIN, PROTOCOL, R16, make_record, write_record
from studies import ABLATIONS

from senet_ablate import runner
from senet_ablate.assessment import assess
from senet_ablate.cli import main
from senet_ablate.errors import UserError
from senet_ablate.options import Chosen, choose
from senet_ablate.overhead import total_cost
from senet_ablate.planner import LaidOut, Wish, lay_out
from senet_ablate.plans import StudyPlan, read_plan
from senet_ablate.rules import Rules
from senet_ablate.specs import Protocol, SEConfig, Variant
from senet_ablate.store import Study
from senet_ablate.suite import arms, load_ablations, load_protocol

DIGITS = load_protocol(ABLATIONS, "digits")
MAX = Variant(se=SEConfig(squeeze="max"))
SQUEEZE = (MAX, R16, PLAIN)
"""The networks of table 11."""

Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command in this process, in an empty folder, with the repository's declarations."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, [*arguments, "--ablations", str(ABLATIONS)])


def said(result: Result) -> str:
    """Standard output on one line."""
    return " ".join(result.stdout.split())


def told(result: Result) -> str:
    """The mistake, on one line."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), "no traceback"
    return " ".join(result.stderr.split())


def chances(result: Result) -> dict[str, dict[str, str]]:
    """What is printed of each finding."""
    names = ("finds", "paper", "chance", "half", "takes")
    lines = re.findall(r"^ *(\w+:\S+) +(\S+) +(\S+) +(\S+) +(\S+) +(\S.*?) *$", result.stdout, flags=re.MULTILINE)
    return {name: dict(zip(names, cells, strict=True)) for name, *cells in lines}


def the_plan(study: str = "digits") -> StudyPlan:
    plan = read_plan(Study(Path("results") / study))
    assert plan is not None
    return plan


def finish(
    counts: Mapping[Variant, int], study: str = "digits", wall_s: float = 60.0, protocol: Protocol = DIGITS
) -> Study:
    """Finished runs of networks at their true cost, each second of which is `wall_s` for the plain network."""
    made = Study(Path("results") / study)
    made.begin(protocol, FACTS)
    for variant, count in counts.items():
        costs = {
            each: total_cost(protocol.network, each, in_channels=1, classes=10, resolution=protocol.data.resolution)
            for each in (variant, PLAIN)
        }
        for seed in range(count):
            seconds = wall_s * costs[variant].macs / costs[PLAIN].macs
            record = make_record(variant, seed, 10.0 + seed / 2, protocol=protocol, wall_s=seconds)
            write_record(made, record.model_copy(update={"complexity": costs[variant]}))
    return made


def nothing_written() -> bool:
    return not list(Path.cwd().rglob("*"))


# --- seeds ---


def test_without_a_budget_each_network_gets_the_protocols_seeds_or_those_asked_for(call: Call) -> None:
    assert "3 networks, 9 runs, 0 finished, 9 to do." in said(call("plan", "squeeze"))
    assert "3 networks, 21 runs, 0 finished, 21 to do." in said(call("plan", "squeeze", "--seeds", "7"))
    assert nothing_written()


def test_runs_are_shared_out_and_all_of_them(call: Call) -> None:
    result = call("plan", "squeeze", "--runs", "20")
    assert result.exit_code == 0, result.output
    assert "3 networks, 20 runs, 0 finished, 20 to do." in said(result)
    assert "No plan file yet; --write makes this the plan." in said(result)
    assert nothing_written()


def test_a_plan_tells_what_it_can_decide_before_anything_runs(call: Call) -> None:
    result = call("plan", "squeeze", "--seeds", "5", "--error", "5")
    found = chances(result)
    assert list(found) == ["squeeze:11a", "squeeze:11b"], "11c is outside the family"
    assert (found["squeeze:11a"]["paper"], found["squeeze:11b"]["paper"]) == ("0.29", "0.73")
    # Section 7: 100 sqrt(phi kappa err / 2N) with 30 epochs, 10 classes and the digits' 768 test images.
    sd = 100 * math.sqrt(1.15 * 0.75 * 0.05 / (2 * 768))
    text = said(result)
    assert f"Noise of one run: {sd:.2f} points, from formulas, for an error of 5 % on 768 test images" in text
    assert f"Assumed SE gain: 1.02 points, {1.02 / sd:.1f} times the noise." in text
    assert f"standard error of about {7 / math.sqrt(768):.2f} points" in text
    expected = sum(float(cells["chance"]) for cells in found.values())
    told_expected = re.search(r"Expected: (\S+) of 2 findings", text)
    assert told_expected is not None
    assert float(told_expected[1]) == pytest.approx(expected, abs=0.06)
    lost = [name.split(":")[1] for name, cells in found.items() if float(cells["chance"]) < 0.795]
    assert f"Out of reach (chance under 80%): {', '.join(lost)}." in text


def test_an_assumed_gain_scales_what_the_paper_shows(call: Call) -> None:
    found = chances(call("plan", "squeeze", "--gain", "3.06"))
    assert (found["squeeze:11a"]["paper"], found["squeeze:11b"]["paper"]) == ("0.87", "2.19")


def test_rows_alone_have_no_findings_to_plan_for(call: Call) -> None:
    assert "No finding of the chosen rows can be judged: name whole tables." in said(
        call("plan", "ratio", "--rows", "r2")
    )


# --- wishes that exclude each other ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "4", "--runs", "20"], ["--seeds 4", "--runs"]),
        (["--seeds", "4", "--budget", "2h"], ["--seeds 4", "--budget"]),
        (["--runs", "20", "--budget", "2h"], ["--runs 20", "--budget", "give one"]),
        (["--extend"], ["--extend", "--runs N or --budget TIME"]),
        (["--extend", "--runs", "9"], ["--extend", "'digits'", "no plan file", "--write"]),
        (["--runs", "5"], ["83%", "two seeds of each of 3 networks"]),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(arguments: list[str], words: list[str], call: Call) -> None:
    message = told(call("plan", "squeeze", *arguments))
    assert all(word in message for word in words), message
    assert nothing_written()


@pytest.mark.parametrize("options", [["--runs", "1"], ["--gain", "0"], ["--error", "100"], ["--jobs", "0"]])
def test_numbers_out_of_range_are_refused(options: list[str], call: Call) -> None:
    assert options[0] in told(call("plan", "squeeze", *options))


# --- rules ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("margin_roh=0.3", ["--rule", "margin_roh", "did you mean 'margin_rho'"]),
        ("margin_rho=2", ["--rule", "margin_rho = 2", "less than or equal to 1"]),
        ("alpha=much", ["--rule", "alpha", "much"]),
        ("pairing=quarter", ["--rule", "pairing", "half", "full", "none"]),
        ("metric=top1", ["--rule", "metric", "top1_err"]),
        ("looks=6", ["--rule", "looks = 6", "less than or equal to 5"]),
        ("margin_rho", ["--rule 'margin_rho'", "KEY=VALUE"]),
    ],
)
def test_a_mistake_in_a_rule_is_told_with_what_would_be_right(change: str, words: list[str], call: Call) -> None:
    message = told(call("plan", "squeeze", "--rule", change, "--write"))
    assert all(word in message for word in words), message
    assert nothing_written()


def test_changed_rules_are_written_and_change_what_can_be_decided(call: Call) -> None:
    usual = chances(call("plan", "squeeze", "--seeds", "8"))
    careful = call(
        "plan", "squeeze", "--seeds", "8", "--rule", "alpha=0.01", "--rule", "looks = 2", "--rule", "margin_abs=0.4",
        "--rule", "pairing=none", "--write",
    )  # fmt: skip
    assert careful.exit_code == 0, careful.output
    assert the_plan().rules == Rules(alpha=0.01, looks=2, margin_abs=0.4, pairing="none")
    for name, cells in chances(careful).items():
        assert float(cells["finds"]) > float(usual[name]["finds"])
        assert float(cells["chance"]) < float(usual[name]["chance"])
    again = call("plan", "squeeze", "--rule", "alpha=0.1", "--write")
    assert again.exit_code == 0
    assert the_plan().rules == Rules(alpha=0.1, looks=2, margin_abs=0.4, pairing="none"), "others stay as they were"


# --- budgets ---


def test_a_budget_of_time_without_a_finished_run_is_refused_with_what_to_do(call: Call) -> None:
    message = told(call("plan", "squeeze", "--budget", "2h"))
    assert "no finished run in results/" in message
    assert "run ratio --rows r16 --seeds 1" in message
    assert "--runs" in message


def test_a_budget_of_time_is_spent_at_the_pace_of_finished_runs(call: Call) -> None:
    finish({PLAIN: 2}, "another", wall_s=60.0)
    plain, *others = (
        total_cost(DIGITS.network, variant, in_channels=1, classes=10, resolution=8).macs
        for variant in (PLAIN, R16, MAX)
    )
    result = call("plan", "squeeze", "--budget", "20min", "--jobs", "1")
    assert result.exit_code == 0, result.output
    counts = dict(re.findall(r"^ *(plain|se-r16|se-r16-max) .* (\d+) +0 *$", result.stdout, flags=re.MULTILINE))
    minutes = int(counts["plain"]) + sum(
        int(counts[name]) * macs / plain for name, macs in zip(("se-r16", "se-r16-max"), others, strict=True)
    )
    dearest = max(others) / plain
    assert 20 - dearest < minutes <= 20
    assert "from 2 finished runs of this protocol, on A processor" in said(result)
    time_told = re.search(r"Time: about (\d+) min (\d+) s of one worker", said(result))
    assert time_told is not None
    assert int(time_told[1]) * 60 + int(time_told[2]) == pytest.approx(60 * minutes, abs=1)


def test_more_workers_have_more_time(call: Call) -> None:
    finish({PLAIN: 2}, "another", wall_s=60.0)
    runs = {}
    for jobs in (1, 2):
        found = re.search(
            r"3 networks, (\d+) runs", said(call("plan", "squeeze", "--budget", "10min", "--jobs", str(jobs)))
        )
        assert found is not None
        runs[jobs] = int(found[1])
    assert runs[1] in (9, 10)
    assert runs[2] in (19, 20)


def test_what_80_percent_power_takes_is_told_in_time_too(call: Call) -> None:
    assert re.fullmatch(r"\d+ seeds", chances(call("plan", "squeeze"))["squeeze:11b"]["takes"])
    finish({PLAIN: 2}, "another", wall_s=60.0)
    takes = chances(call("plan", "squeeze", "--seeds", "3"))["squeeze:11b"]["takes"]
    found = re.fullmatch(r"(\d+) seeds, (?:(\d+) h )?(\d+) min(?: (\d+) s)?", takes)
    assert found is not None, takes
    seconds = 3600 * int(found[2] or 0) + 60 * int(found[3]) + int(found[4] or 0)
    share = (
        total_cost(DIGITS.network, MAX, in_channels=1, classes=10, resolution=8).macs
        / total_cost(DIGITS.network, PLAIN, in_channels=1, classes=10, resolution=8).macs
    )
    assert seconds == pytest.approx(int(found[1]) * 60 * (1 + share), abs=60), "of the networks that it needs alone"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("90min", 5400),
        ("1h30m", 5400),
        ("45s", 45),
        ("1.5h", 5400),
        ("1h 30min 20s", 5420),
        (" 10 m ", 600),
    ],
)
def test_times_are_read_as_people_write_them(text: str, seconds: float, call: Call) -> None:
    finish({PLAIN: 1}, "another", wall_s=seconds / 10)  # so that the time is that of ten plain runs
    found = re.search(r"3 networks, (\d+) runs", said(call("plan", "squeeze", "--budget", text, "--jobs", "1")))
    assert found is not None
    assert int(found[1]) == 9, "with SE a run takes a little longer"


@pytest.mark.parametrize("text", ["90", "", "soon", "h", "0h", "0s", "2d", "1h30", "-1h", "m30", "1,5h"])
def test_what_is_no_time_is_refused_with_examples(text: str, call: Call) -> None:
    message = told(call("plan", "squeeze", "--budget", text))
    assert "--budget" in message
    assert "2h, 90min or 1h30m" in message


def test_noise_is_learnt_from_the_records_of_any_study_of_the_protocol(call: Call) -> None:
    finish({PLAIN: 2, R16: 2}, "another")
    text = said(call("plan", "squeeze"))
    assert re.search(r"from 4 finished runs \(over-dispersion 1\.[12] assumed\)", text)
    wrong = [
        [np.load(path.parent / "predictions.npz")["wrong"] for path in sorted(Path("results/another").glob(glob))]
        for glob in ("plain-*/record.json", "se-r16-s*/record.json")
    ]
    # The share of the 200 images on which two seeds differ, by 2 N, times the 1.15 of 30 epochs.
    b = [1e4 * np.unpackbits(one ^ other).sum() / 200 / (2 * 200) for one, other in wrong]
    assert f"Noise of one run: {math.sqrt(1.15 * np.median(b)):.2f} points" in text


def test_noise_of_another_recipe_or_of_one_network_is_not_taken(call: Call) -> None:
    short = DIGITS.model_copy(update={"recipe": DIGITS.recipe.model_copy(update={"epochs": 9})})
    finish({PLAIN: 2, R16: 2}, "short", protocol=short)
    finish({PLAIN: 4, R16: 1}, "lonely")
    assert "from formulas" in said(call("plan", "squeeze"))
    finish({PLAIN: 2, R16: 2}, "rich")
    assert "from 4 finished runs" in said(call("plan", "squeeze")), "one that tells nothing hides no other"


# --- the plan file ---


def test_a_written_plan_says_when_by_what_and_how_many(call: Call) -> None:
    result = call("plan", "squeeze", "--runs", "20", "--write")
    plan = the_plan()
    assert sum(plan.seeds[0].values()) == 20
    assert set(plan.seeds[0]) == {arm.slug for arm in arms(load_ablations(ABLATIONS, ["squeeze"]))}
    assert plan.rules == Rules()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", plan.written)
    assert "from formulas" in plan.basis
    assert "20 runs shared out" in plan.basis
    assert f"Wrote results/digits/plan.json ({plan.digest})" in said(result)
    assert [path.name for path in Path.cwd().rglob("*") if path.is_file()] == ["plan.json"]


def test_planned_counts_are_what_status_and_a_later_plan_show(call: Call) -> None:
    call("plan", "squeeze", "--runs", "20", "--write")
    (planned,) = the_plan().seeds
    status = call("status", "squeeze")
    shown = dict(re.findall(r"^ *(\S+) +0 of (\d+)", status.stdout, flags=re.MULTILINE))
    assert {name: int(count) for name, count in shown.items()} == planned
    assert "0 of 20 runs finished" in said(status)
    assert "3 networks, 20 runs" in said(call("plan", "squeeze"))
    assert "0 of 6 runs finished" in said(call("status", "squeeze", "--seeds", "2")), "--seeds asks for others"
    finish({PLAIN: 1})
    assert f"1 of {planned['plain']}" in said(call("status", "squeeze"))


def test_run_trains_the_planned_seeds(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call("plan", "squeeze", "--runs", "20", "--write")
    asked: list[tuple[str, int]] = []

    def execute(executor: Any, todo: Any, plan: Any, console: Any) -> runner.Summary:
        asked.extend((request.spec.variant.slug, request.spec.seed) for request in todo)
        return runner.Summary(len(todo), 0, {}, 1.0)

    monkeypatch.setattr(runner, "execute", execute)
    result = call("run", "squeeze", "--device", "cpu")
    assert result.exit_code == 0, result.output
    (planned,) = the_plan().seeds
    assert sorted(asked) == sorted((slug, seed) for slug, count in planned.items() for seed in range(count))
    assert [seed for _, seed in asked] == sorted(seed for _, seed in asked), "seed by seed"


def test_without_write_the_plan_file_stays_as_it_is(call: Call) -> None:
    call("plan", "squeeze", "--seeds", "4", "--write")
    before = Path("results/digits/plan.json").read_bytes()
    assert "No plan file yet" not in said(call("plan", "squeeze", "--runs", "20", "--rule", "looks=3"))
    assert Path("results/digits/plan.json").read_bytes() == before


def test_a_study_has_its_own_plan(call: Call) -> None:
    call("plan", "squeeze", "--seeds", "4", "--write", "--study", "mine")
    assert set(the_plan("mine").seeds[0].values()) == {4}
    assert not Path("results/digits").exists()
    assert "12 runs" in said(call("plan", "squeeze", "--study", "mine"))


def test_a_first_plan_after_the_first_run_is_refused(call: Call) -> None:
    finish({PLAIN: 1})
    message = told(call("plan", "squeeze", "--runs", "20", "--write"))
    assert "a plan is made before the first run" in message
    assert not Path("results/digits/plan.json").exists()


def test_a_damaged_plan_file_is_one_message(call: Call) -> None:
    Path("results/digits").mkdir(parents=True)
    Path("results/digits/plan.json").write_text(json.dumps({"seeds": 3}))
    for command in (["plan"], ["status"], ["plan", "--runs", "60"]):
        assert "results/digits/plan.json: cannot be read" in told(call(*command))


# --- a further look ---


def test_an_extension_adds_a_look_that_starts_from_what_is_planned(call: Call) -> None:
    call("plan", "squeeze", "--seeds", "3", "--rule", "looks=2", "--write")
    first = the_plan()
    finish(dict.fromkeys(SQUEEZE, 3))
    result = call("plan", "squeeze", "--runs", "6", "--extend")
    assert result.exit_code == 0, result.output
    plan = the_plan()
    assert len(plan.seeds) == 2
    assert plan.seeds[0] == first.seeds[0]
    added = {slug: count - first.seeds[0][slug] for slug, count in plan.seeds[1].items()}
    assert min(added.values()) >= 0
    assert 0 < sum(added.values()) <= 6
    assert (plan.rules, plan.written) == (first.rules, first.written), "the plan is as old as it was"
    assert f"{9 + sum(added.values())} runs, 9 finished, {sum(added.values())} to do" in said(result)
    assert f"9 of {sum(plan.seeds[1].values())} runs finished" in said(call("status", "squeeze"))


def test_an_extension_may_not_change_the_rules(call: Call) -> None:
    call("plan", "squeeze", "--seeds", "3", "--write")
    finish(dict.fromkeys(SQUEEZE, 3))
    before = the_plan()
    assert "add seeds with --extend" in told(call("plan", "squeeze", "--runs", "6", "--extend", "--rule", "alpha=0.1"))
    assert the_plan() == before


def test_an_extension_buys_nothing_for_findings_that_have_a_verdict(call: Call) -> None:
    call("plan", "squeeze", "--seeds", "3", "--write")
    study = Study(Path("results/digits"))
    study.begin(DIGITS, FACTS)
    for (variant, error), seed in itertools.product(((MAX, 45.0), (R16, 10.0), (PLAIN, 90.0)), range(3)):
        write_record(study, make_record(variant, seed, error + seed / 2, protocol=DIGITS))
    call("plan", "squeeze", "--runs", "9", "--extend")
    assert the_plan().seeds[1] == the_plan().seeds[0]


def test_an_extension_buys_seeds_of_open_findings_alone(call: Call) -> None:
    call("plan", "nosqueeze", "--seeds", "4", "--write")
    study = Study(Path("results/digits"))
    study.begin(DIGITS, FACTS)
    none = Variant(se=SEConfig(squeeze="none"))
    # SE beats no squeeze (16a) beyond doubt; whether no squeeze beats no SE (16b) is open.
    for (variant, error), seed in itertools.product(((none, 44.0), (R16, 10.0), (PLAIN, 48.5)), range(4)):
        write_record(study, make_record(variant, seed, error + seed / 2, protocol=DIGITS))
    result = call("plan", "nosqueeze", "--runs", "6", "--extend", "--gain", "30")
    assert result.exit_code == 0, result.output
    before, after = the_plan().seeds
    assert {slug for slug in after if after[slug] > before[slug]} == {"se-r16-nosqueeze", "plain"}


# --- the function behind the command ---


def laid_out(tmp_path: Path, wish: Wish, results: Path | None = None) -> LaidOut:
    tables = load_ablations(ABLATIONS, ["squeeze"])
    chosen = Chosen(tables, tables, PROTOCOL, Study((results or tmp_path / "results") / "tiny"))
    return lay_out(chosen, wish, (1, 10), lambda share: None)


def test_progress_is_told_while_seeds_are_chosen(tmp_path: Path) -> None:
    tables = load_ablations(ABLATIONS, ["squeeze"])
    chosen = Chosen(tables, tables, PROTOCOL, Study(tmp_path / "results" / "tiny"))
    shares: list[float] = []
    lay_out(chosen, Wish(runs=12), (1, 10), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_plan_has_runs_cost_and_prospects_of_the_same_seeds(tmp_path: Path) -> None:
    found = laid_out(tmp_path, Wish(runs=14, error=20.0, gain=2.0))
    assert found.plan.runs == 14
    assert found.estimate is None
    assert found.pace is None
    assert [prospect.claim.id for prospect in found.prospects] == ["11a", "11b"]
    assert all(found.takes(prospect) == f"{prospect.seeds} seeds" for prospect in found.prospects)
    assert not (tmp_path / "results").exists()


def test_a_hopeless_finding_takes_more_than_any_number_of_seeds(tmp_path: Path) -> None:
    found = laid_out(tmp_path, Wish(seeds=3, gain=0.01))
    assert {found.takes(prospect) for prospect in found.prospects} == {"> 1,000 seeds"}


def test_a_failed_wish_raises_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two budgets"):
        laid_out(tmp_path, Wish(runs=14, budget=60.0, write=True))
    assert not (tmp_path / "results").exists()


def test_plans_of_equal_wishes_are_equal(tmp_path: Path) -> None:
    one, two = (laid_out(tmp_path, Wish(runs=13)) for _ in range(2))
    assert one == two


def test_extending_one_table_keeps_the_plan_of_the_others(call):
    call("plan", "squeeze", "gate", "--seeds", "3", "--write")
    tables = load_ablations(ABLATIONS, ["squeeze", "gate"])
    finish({arm.variant: 3 for arm in arms(tables)})
    call("plan", "squeeze", "--runs", "3", "--extend")
    assert the_plan().seeds[1]["se-r16-tanh"] == 3
    assert not [line for line in assess(tables, Study(Path("results/digits"))).deviations if "unplanned" in line]


def test_extending_does_not_hide_changed_claims(call, tmp_path):
    call("plan", "squeeze", "--seeds", "3", "--write")
    before = the_plan().claims
    finish(dict.fromkeys(SQUEEZE, 3))
    shutil.copytree(ABLATIONS, tmp_path / "changed")
    file = tmp_path / "changed" / "table11_squeeze.toml"
    file.write_text(file.read_text().replace('better = "avg", worse = "max"', 'better = "max", worse = "avg"'))
    CliRunner().invoke(main, ["plan", "squeeze", "--runs", "3", "--extend", "--ablations", "changed"])
    assert len(the_plan().seeds) == 2
    assert the_plan().claims == before


def test_an_undeclared_look_is_planned_at_the_level_at_which_it_is_judged(call):
    call("plan", "squeeze", "--seeds", "3", "--write")
    finish(dict.fromkeys(SQUEEZE, 3))
    extended = chances(call("plan", "squeeze", "--runs", "3", "--extend"))
    declared = chances(call("plan", "squeeze", "--rule", "looks=5"))
    assert extended["squeeze:11a"]["finds"] == declared["squeeze:11a"]["finds"]


def test_a_damaged_record_of_another_study_does_not_stop_a_plan(call):
    other = finish({PLAIN: 2, R16: 2}, "another")
    next(other.root.glob("*/record.json")).write_text("{}")
    assert call("plan", "squeeze", "--study", "third").exit_code == 0


def test_controls_run_later_do_not_break_the_papers_plan(call):
    call("plan", "squeeze", "--seeds", "3", "--write")
    study = finish(dict.fromkeys(SQUEEZE, 3))
    constant = Variant(se=SEConfig(gate="constant"))
    write_record(study, make_record(constant, 0, 10.0, protocol=DIGITS))
    chosen = choose((), ABLATIONS, None, (), None, None, Path("results"))
    assessment = assess(chosen.declared, chosen.study)
    assert assessment.rules.looks == 1
    assert "not in the plan: se-r16-constant" in assessment.deviations
