"""Sharing out a machine, and the study around an executor."""

import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import helpers
import pytest
from rich.console import Console
from sound import begun

from senet_ablate.errors import UserError
from senet_ablate.execution import driver, machine
from senet_ablate.execution.machine import Machine, share_out
from senet_ablate.results.store import Study
from senet_ablate.results.worklist import ArmPlan, Plan, make_plan
from senet_ablate.spec.ablation import Arm, arms
from senet_ablate.spec.loading import declarations_dir, load_ablations, load_protocol
from senet_ablate.spec.protocol import Complexity
from senet_ablate.training.request import Event, RunRequest


@pytest.mark.parametrize(
    ("cores", "jobs", "devices", "threads", "workers"),
    [(2, None, 1, 1, 2), (8, None, 1, 2, 4), (2, None, 2, 1, 1), (2, 5, 1, 1, 5), (1, None, 2, 1, 1)],
)
def test_processor_cores_are_shared_without_oversubscription(cores, jobs, devices, threads, workers):
    resources = share_out(Machine("cpu", 0, cores), jobs, devices, threads)
    assert len(resources.environments) == workers
    assert {environment["OMP_NUM_THREADS"] for environment in resources.environments} == {str(threads)}
    assert resources.loader_workers == 0


def test_each_worker_sees_its_own_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    resources = share_out(Machine("cuda", 4, 32), None, 2, 1)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in resources.environments] == ["0,1", "2,3"]
    assert resources.loader_workers == 32 // 4 - 1


def test_several_jobs_on_one_gpu_and_a_users_choice_of_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    resources = share_out(Machine("cuda", 1, 16), 3, 1, 1)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in resources.environments] == ["5"] * 3


def test_more_devices_than_there_are_is_an_error():
    with pytest.raises(UserError, match=r"--devices-per-run 3: this machine has 2 cuda devices"):
        share_out(Machine("cuda", 2, 8), None, 3, 1)


def test_a_device_that_is_not_there_is_an_error_that_says_what_is(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"--device cuda: not on this machine; present: .*cpu"):
        machine.find_machine("cuda")


class Scripted:
    """An executor that tells of one failure and otherwise of success, in the order of the requests."""

    def execute(self, requests):
        for number, request in enumerate(requests):
            yield Event("started", request)
            yield None
            yield Event("failed", request, "out of luck") if number == 1 else Event("finished", request)


@pytest.fixture
def small_plan(tmp_path):
    directory = declarations_dir()
    protocol = load_protocol(directory, "digits")
    study = Study(tmp_path / "digits")
    tables = load_ablations(directory, ["gate"])
    return make_plan(tables, protocol, dict.fromkeys(arms(tables), 2), study, (1, 10)), study


def test_runs_go_seed_by_seed_with_the_longest_first(small_plan):
    plan, _ = small_plan  # of ReLU, tanh, sigmoid and the network without SE
    assert [run.seed for run in plan.todo] == [0, 0, 0, 0, 1, 1, 1, 1]
    tables, protocol = load_ablations(declarations_dir()), load_protocol(declarations_dir(), "digits")
    everything = make_plan(tables, protocol, dict.fromkeys(arms(tables), 1), small_plan[1], (1, 10))
    macs = {planned.arm.variant: planned.complexity.macs for planned in everything.arms}
    costs = [macs[run.variant] for run in everything.todo]
    assert costs == sorted(costs, reverse=True)


def test_a_network_under_other_seeds_has_its_turn_beside_the_seeds_it_is_compared_with(small_plan):
    protocol = load_protocol(declarations_dir(), "digits")
    tables = load_ablations(declarations_dir(), ["controls"])
    plan = make_plan(tables, protocol, dict.fromkeys(arms(tables), 2), small_plan[1], (1, 10))
    assert [sorted(run.seed for run in plan.todo[place : place + 6]) for place in (0, 6)] == [
        [0, 0, 0, 0, 0, 1000],
        [1, 1, 1, 1, 1, 1001],
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_failure_is_told_and_counted_and_progress_is_for_terminals_only(small_plan, terminal):
    plan, study = small_plan
    resources = share_out(Machine("cpu", 0, 2), None, 1, 1)
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=80)
    todo = driver.requests(plan, study, None, None, resources)
    summary = driver.execute(lambda fits: Scripted(), todo, plan, console)
    assert summary.trained == 7
    assert list(summary.failed.values()) == ["out of luck"]
    assert "out of luck" in text.getvalue()
    assert ("8 of 8 runs" in text.getvalue()) == terminal


def test_a_pin_that_is_removed_under_way_is_written_again(tmp_path: Path) -> None:
    """Without it the finished runs would belong to no study, and none would be shown."""
    study = begun(Study(tmp_path / "results" / "first"))
    pin, pin_file = study.pin(), study.root / "study.json"
    before = pin_file.read_bytes()

    class Removing:
        def execute(self, requests: Sequence[RunRequest]) -> Iterator[Event | None]:
            for one in requests:
                pin_file.unlink()
                yield None
                assert pin_file.read_bytes() == before, "at once"
                yield Event("started", one)
                pin_file.unlink()
                yield Event("finished", one)

    todo = [helpers.request(study.root, 0)]
    spec, cost = todo[0].spec, Complexity(params=1, params_with_bn_stats=1, macs=1)
    arm = ArmPlan(Arm(variant=spec.variant), (), cost, (spec,))
    plan = Plan((arm,), frozenset())
    driver.execute(lambda fits: Removing(), todo, plan, Console(file=io.StringIO()), keep=partial(study.keep, pin))
    assert pin_file.read_bytes() == before
