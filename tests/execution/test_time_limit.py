"""A call with a time: what fits is begun, what does not is left, and when time is up nothing goes on."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from test_local import request, workers

from senet_ablate.cli.main import main
from senet_ablate.execution import driver
from senet_ablate.execution.executor import Fits
from senet_ablate.execution.local import local_executor
from senet_ablate.execution.machine import Machine, share_out
from senet_ablate.execution.progress import TimeLimit
from senet_ablate.results.store import Study
from senet_ablate.results.worklist import make_plan
from senet_ablate.spec.ablation import arms
from senet_ablate.spec.loading import declarations_dir, load_ablations, load_protocol
from senet_ablate.training.request import Event, RunRequest


class Clock:
    """Seconds that go by only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_runs_fit_by_the_pace_of_the_slowest_and_by_what_is_open_of_them(tmp_path: Path) -> None:
    small, middle, large = (request(tmp_path, seed) for seed in range(3))
    clock = Clock()
    work = {small.spec.run_id: 10.0, middle.spec.run_id: 20.0, large.spec.run_id: 40.0}
    limit = TimeLimit(clock.now + 100, work, clock)
    assert all(map(limit.fits, (small, middle, large)))  # nothing is known yet
    limit.begun(small)
    limit.begun(middle)
    clock.now += 20
    limit.ended(small)  # 2 seconds for a unit of work
    assert limit.left_s == 80
    assert limit.fits(large)  # 80 seconds, and 80 are left
    clock.now += 1
    assert not limit.fits(large)
    assert limit.fits(middle)
    clock.now += 9
    limit.ended(middle)  # 30 seconds for 20 units: faster, and the slowest counts
    assert not limit.fits(replace(large))
    large.folder.path.mkdir()
    large.folder.progress_file.write_text('{"epoch": 5, "epochs": 10}')
    assert limit.fits(large)  # the open half takes 40 of 70 seconds
    clock.now += 31
    assert not limit.fits(large)
    limit.ended(large)  # never begun here: says nothing of the pace
    clock.now += 100
    assert limit.left_s < 0
    assert not limit.fits(small)


def test_the_pool_leaves_what_does_not_fit_and_does_what_comes_after_it(tmp_path: Path) -> None:
    requests = [request(tmp_path, seed) for seed in range(3)]
    events = local_executor([{}]).execute(requests, lambda each: each.spec.seed != 1)
    events = [(event.kind, event.request.spec.seed) for event in events if event]
    assert events == [("started", 0), ("finished", 0), ("left", 1), ("started", 2), ("finished", 2)]
    assert requests[1].folder.record() is None


class Slow:
    """An executor whose first run finishes and whose second goes on for ever; asks before it begins one."""

    closed = False

    def execute(self, requests: Sequence[RunRequest], fits: Fits) -> Iterator[Event | None]:
        self.fits = fits
        try:
            yield Event("started", requests[0])
            yield Event("finished", requests[0])
            yield Event("started", requests[1])
            while True:
                time.sleep(0.01)
                yield None
        finally:
            self.closed = True


def test_when_time_is_up_what_is_under_way_stops(tmp_path: Path) -> None:
    tables, protocol = load_ablations(declarations_dir(), ["gate"]), load_protocol(declarations_dir(), "digits")
    study = Study(tmp_path / "digits")
    plan = make_plan(tables, protocol, dict.fromkeys(arms(tables), 2), study, (1, 10))
    todo = driver.requests(plan.todo, study, None, None, share_out(Machine("cpu", 0, 2), None, 1, 1))
    slow, console = Slow(), Console(file=io.StringIO())
    summary = driver.execute(slow, todo, plan.work, console, time.monotonic() + 0.2)
    assert (summary.trained, summary.found, summary.failed, summary.left) == (1, 0, {}, 7)
    assert summary.wall_s >= 0.2
    assert slow.closed
    assert not slow.fits(todo[2])


def test_a_call_with_too_little_time_stops_tidily_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call = ["run", "gate", "--rows", "tanh", "--seeds", "1", "--jobs", "1", "--results", "results"]
    short = ["--set", "recipe.epochs=3", "--study", "short"]
    first = CliRunner().invoke(
        main, [*call, *short, "--set", "recipe.epochs=100000", "--study", "long", "--for", "12s"]
    )
    assert first.exit_code == 0, first.output
    assert "trained 0 runs in" in first.output
    assert ", 2 left for lack of time (the same command continues)" in " ".join(first.output.split())
    assert workers() == []
    assert not list(Path("results/long").glob("*/record.json"))
    again = CliRunner().invoke(main, [*call, *short, "--for", "10min"])
    assert again.exit_code == 0, again.output
    assert "trained 2 runs in" in again.output
    assert "did not fit" not in again.output


def test_jobs_elsewhere_have_limits_of_their_own() -> None:
    result = CliRunner().invoke(main, ["run", "ratio", "--executor", "slurm", "--for", "25min"])
    assert result.exit_code == 2
    assert "--for limits runs on this machine; with --executor slurm each job has its own time limit" in " ".join(
        result.output.split()
    )


def test_without_a_limit_everything_fits(tmp_path: Path) -> None:
    one = request(tmp_path, 0)
    limit = TimeLimit(float("inf"), {one.spec.run_id: 1e30})
    limit.begun(one)
    limit.ended(one)
    assert limit.fits(one)
