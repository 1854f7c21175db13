"""Sharing out a machine, and the study around an executor."""

import errno
import io
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from helpers import PROTOCOL, SE, make_record, request, write_record
from rich.console import Console
from sound import begun

from senet_ablate.errors import UserError
from senet_ablate.execution import driver, machine
from senet_ablate.execution.machine import Machine, share_out
from senet_ablate.execution.progress import ProgressLog
from senet_ablate.results.records import Progress
from senet_ablate.results.store import Study
from senet_ablate.results.worklist import make_plan
from senet_ablate.spec.ablation import arms
from senet_ablate.spec.loading import declarations_dir, load_ablations, load_protocol
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


@pytest.fixture
def lock(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"senet-ablate-uid{os.getuid()}.lock"


@pytest.mark.parametrize("there", ["a folder", "a pipe", "a link", "no temporary folder"])
def test_training_and_measuring_go_on_where_the_lock_cannot_be_had(lock, monkeypatch, there):
    if there == "a folder":
        lock.mkdir()
    elif there == "a pipe":
        os.mkfifo(lock)
    elif there == "a link":
        lock.symlink_to("somewhere")
    else:
        monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with machine.shared(print):
        pass
    with machine.alone():
        pass
    assert not (lock.parent / "somewhere").exists()


def test_a_file_system_without_locks_keeps_nobody_out(lock, monkeypatch):
    def refuse(handle, kind):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with machine.shared(print), machine.alone():
        pass


def test_who_waits_for_a_measurement_is_told(lock):
    told = []
    with ExitStack() as measuring:
        measuring.enter_context(machine.alone())

        def say(text):
            told.append(text)
            measuring.close()

        with machine.shared(say):
            pass
    assert len(told) == 1
    assert "waiting" in told[0]


class Scripted:
    """An executor that tells of one failure and otherwise of success, in the order of the requests."""

    def execute(self, requests, fits):
        for number, run in enumerate(requests):
            yield Event("started", run)
            yield None
            yield Event("failed", run, "out of luck") if number == 1 else Event("finished", run)


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
    todo = driver.requests(plan.todo, study, None, None, resources)
    summary = driver.execute(Scripted(), todo, plan.work, console)
    assert summary.trained == 7
    assert list(summary.failed.values()) == ["out of luck"]
    assert "out of luck" in text.getvalue()
    assert ("━━━━" in text.getvalue()) == terminal


def test_a_pin_that_is_removed_under_way_is_written_again(tmp_path: Path) -> None:
    """Without it the finished runs would belong to no study, and none would be shown."""
    study = begun(Study(tmp_path / "results" / "first"))
    pin, pin_file = study.pin(), study.root / "study.json"
    before = pin_file.read_bytes()

    class Removing:
        def execute(self, requests: Sequence[RunRequest], fits: object) -> Iterator[Event | None]:
            for one in requests:
                pin_file.unlink()
                yield None
                assert pin_file.read_bytes() == before, "at once"
                yield Event("started", one)
                pin_file.unlink()
                yield Event("finished", one)

    todo = [request(study.root, 0)]
    work = {todo[0].spec.run_id: 1.0}
    driver.execute(Removing(), todo, work, Console(file=io.StringIO()), keep=partial(study.keep, pin))
    assert pin_file.read_bytes() == before


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def log_of(requests, terminal=False):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=80)
    return ProgressLog(console, {request.spec.run_id: 1.0 for request in requests}), text


def test_each_run_that_ends_is_a_line_with_what_it_came_to_and_the_time_left(tmp_path, clock):
    """Four runs of equal work, one after the other: the first took 30 s, so 90 s are left, then 60 s."""
    study = Study(tmp_path)
    errors = [3.5, None, 4.0, 5.0]
    runs = [
        RunRequest(spec=PROTOCOL.run_spec(SE, seed), folder=study.run(PROTOCOL.run_spec(SE, seed).run_id))
        for seed in range(4)
    ]
    log, text = log_of(runs)
    with log:
        for run, error, kind in zip(runs, errors, ("finished", "finished", "failed", "found"), strict=True):
            log.take(Event("started", run))
            clock[0] += 30
            if kind != "failed":
                write_record(study, make_record(SE, run.spec.seed, error, wall_s=29.0))
            log.take(Event(kind, run, "out of luck" if kind == "failed" else ""))
    assert text.getvalue().splitlines() == [
        "se-r16 seed 0: 3.50 % error in 29 s; 1 of 4 runs done, about 1 min 30 s left",
        "se-r16 seed 1: diverged in 29 s; 2 of 4 runs done, about 1 min 00 s left",
        f"failed {runs[2].spec.run_id}: out of luck; 3 of 4 runs done, about 30 s left",
        "se-r16 seed 3: 5.00 % error in 29 s by another driver; 4 of 4 runs done",
    ]


def test_epochs_of_an_earlier_call_say_nothing_about_the_pace(tmp_path, clock):
    """A run that goes on at epoch 6 of 8 ends after 40 s: 20 s an epoch, so a whole run takes another 160 s."""
    study = Study(tmp_path)
    specs = [PROTOCOL.run_spec(SE, seed) for seed in range(2)]
    runs = [RunRequest(spec=spec, folder=study.run(spec.run_id)) for spec in specs]
    runs[0].folder.path.mkdir(parents=True)
    runs[0].folder.progress_file.write_text(Progress(epoch=6, epochs=8).model_dump_json())
    log, text = log_of(runs)
    with log:
        log.take(Event("started", runs[0]))
        clock[0] += 40
        write_record(study, make_record(SE, 0, 3.5, wall_s=29.0))
        log.take(Event("finished", runs[0]))
    assert text.getvalue() == "se-r16 seed 0: 3.50 % error in 29 s; 1 of 2 runs done, about 2 min 40 s left\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_file_gets_a_sign_of_life_at_least_every_five_minutes(tmp_path, clock, terminal):
    runs = [request(tmp_path, seed) for seed in range(5)]
    log, text = log_of(runs, terminal)
    told = []
    with log:
        for run in runs:
            log.take(Event("started", run))
        runs[0].folder.progress_file.write_text(Progress(epoch=1, epochs=2).model_dump_json())
        for _ in range(1200):
            clock[0] += 1
            before = len(text.getvalue())
            log.take(None)
            if len(text.getvalue()) > before:
                told.append(clock[0] - 100)
    lines = [line for line in text.getvalue().splitlines() if "under way" in line]
    if terminal:
        assert lines == []
        return
    assert max(later - sooner for sooner, later in zip([0, *told], [*told, 1200], strict=True)) <= 300
    # Half of one of five runs took 240 s, so nine times as long is left.
    under_way = "plain seed 0 at epoch 1 of 2, plain seed 1, plain seed 2, 2 more"
    assert lines[0] == f"0 of 5 runs done, about 36 min 00 s left; under way: {under_way}"


def test_a_damaged_record_ends_no_driver(tmp_path, clock):
    run = request(tmp_path, 0)
    run.folder.record_file.write_text("{")
    log, text = log_of([run])
    log.take(Event("finished", run))
    assert text.getvalue() == "plain seed 0: finished; 1 of 1 runs done\n"
