"""The plan file: what `plan --write` puts there, `run` and `status` follow, and `plan --extend` adds."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers import FACTS, PLAIN, R16, make_record, write_record
from planned import DIGITS, MAX, SQUEEZE, Call, finish, powers, said, the_plan, told
from studies import ABLATIONS

from senet_ablate.analysis.study import assess
from senet_ablate.cli.main import main
from senet_ablate.cli.options import choose
from senet_ablate.execution import driver
from senet_ablate.results.store import Study
from senet_ablate.spec.ablation import arms
from senet_ablate.spec.claims import Rules
from senet_ablate.spec.loading import load_ablations
from senet_ablate.spec.network import SEConfig, Variant


def test_a_written_plan_says_when_by_what_and_how_many(call: Call) -> None:
    result = call("plan", "squeeze", "--runs", "20", "--write")
    plan = the_plan()
    assert sum(plan.seeds[0].values()) == 20
    assert set(plan.seeds[0]) == {arm.slug for arm in arms(load_ablations(ABLATIONS, ["squeeze"]))}
    assert plan.rules == Rules()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", plan.written)
    assert "from formulas" in plan.basis
    assert "20 runs distributed" in plan.basis
    assert f"Wrote results/digits/plan.json ({plan.digest})" in said(result)
    assert [path.name for path in Path.cwd().rglob("*") if path.is_file()] == ["plan.json"]


def test_planned_counts_are_what_status_and_a_later_plan_show(call: Call) -> None:
    call("plan", "squeeze", "--runs", "20", "--write")
    (planned,) = the_plan().seeds
    status = call("status", "squeeze")
    shown = dict(re.findall(r"^ *(\S+) +0 of (\d+)", status.stdout, flags=re.MULTILINE))
    assert {name: int(count) for name, count in shown.items()} == planned
    assert "0 of 20 runs finished" in said(status)
    assert "3 variants, 20 runs" in said(call("plan", "squeeze"))
    assert "0 of 6 runs finished" in said(call("status", "squeeze", "--seeds", "2")), "--seeds asks for others"
    finish({PLAIN: 1})
    assert f"1 of {planned['plain']}" in said(call("status", "squeeze"))


def test_run_trains_the_planned_seeds(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call("plan", "squeeze", "--runs", "20", "--write")
    asked: list[tuple[str, int]] = []

    def execute(start: Any, todo: Any, plan: Any, console: Any, ends_at: float, keep: Any) -> driver.Summary:
        asked.extend((request.spec.variant.slug, request.spec.seed) for request in todo)
        assert ends_at == math.inf, "no time was given"
        return driver.Summary(trained=len(todo), found=0, failed={}, left=0, wall_s=1.0)

    monkeypatch.setattr(driver, "execute", execute)
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
        assert "results/digits/plan.json: damaged: " in told(call(*command))


def test_controls_run_later_do_not_break_the_papers_plan(call):
    call("plan", "squeeze", "--seeds", "3", "--write")
    study = finish(dict.fromkeys(SQUEEZE, 3))
    constant = Variant(se=SEConfig(gate="constant"))
    write_record(study, make_record(constant, 0, 10.0, protocol=DIGITS))
    chosen = choose((), ABLATIONS, None, (), None, None, Path("results"))
    assessment = assess(chosen.declared, chosen.study)
    assert assessment.rules.looks == 1
    assert "not in the plan: se-r16-constant" in assessment.deviations


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
    declared, reversed_ = 'better = "avg", worse = "max"', 'better = "max", worse = "avg"'
    assert declared in file.read_text()
    file.write_text(file.read_text().replace(declared, reversed_))
    CliRunner().invoke(main, ["plan", "squeeze", "--runs", "3", "--extend", "--ablations", "changed"])
    assert len(the_plan().seeds) == 2
    assert the_plan().claims == before


def test_an_undeclared_look_is_planned_at_the_level_at_which_it_is_judged(call):
    call("plan", "squeeze", "--seeds", "3", "--write")
    finish(dict.fromkeys(SQUEEZE, 3))
    extended = powers(call("plan", "squeeze", "--runs", "3", "--extend"))
    declared = powers(call("plan", "squeeze", "--rule", "looks=5"))
    assert extended["11a"]["mde"] == declared["11a"]["mde"]
