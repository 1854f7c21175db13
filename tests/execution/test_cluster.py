"""Runs elsewhere: what each asks of its node, and the executor of a queue that loses some."""

from collections import Counter

import pytest
from helpers import PLAIN, make_record, request, write_record

from senet_ablate.errors import UserError
from senet_ablate.execution import cluster, executor
from senet_ablate.execution.cluster import NodeOptions, do, node_resources, read_options, users_own
from senet_ablate.execution.executor import TRIES, Executor
from senet_ablate.execution.machine import ALLOCATOR
from senet_ablate.execution.ray import RayOptions
from senet_ablate.execution.slurm import SlurmOptions
from senet_ablate.results.store import Study
from senet_ablate.training.request import Event, RunRequest


def test_options_are_read_as_the_type_of_their_key():
    options = read_options(
        SlurmOptions,
        ["partition=07", "gpus=2", "minutes=90", "memory_gb=7.5", "sbatch.reservation=spring=2", "sbatch.nice=100"],
    )
    assert options == SlurmOptions(
        partition="07", gpus=2, minutes=90, memory_gb=7.5, sbatch={"reservation": "spring=2", "nice": "100"}
    )
    assert read_options(RayOptions, ["address=10.0.0.1:6379", "gpus=0.25"]).gpus == 0.25


@pytest.mark.parametrize(
    ("model", "pair", "words"),
    [
        (SlurmOptions, "partitoin=gpu", ["--executor-option", "partitoin", "did you mean 'partition'", "minutes"]),
        (SlurmOptions, "gpus=0.5", ["gpus = 0.5"]),
        (SlurmOptions, "gpus=two", ['gpus = "two"', "integer"]),
        (SlurmOptions, "minutes=1", ["minutes = 1", "5"]),
        (SlurmOptions, "minutes", ["'minutes'", "KEY=VALUE", "partition"]),
        (SlurmOptions, "=gpu", ["'=gpu'", "KEY=VALUE"]),
        (SlurmOptions, "partition=", ["'partition='", "KEY=VALUE"]),
        (SlurmOptions, "sbatch.=x", ["'sbatch.=x'", "KEY=VALUE"]),
        (SlurmOptions, "sbatch=x", ['sbatch = "x"']),
        (SlurmOptions, "gpus.a100=1", ["gpus"]),
        (RayOptions, "partition=gpu", ["partition", "address"]),
        (RayOptions, "gpus=-1", ["gpus = -1", "greater than or equal to 0"]),
        (RayOptions, "gpus=nan", ["gpus"]),
        (RayOptions, "cpus=2026-01-01", ["2026-01-01", "quotes"]),
    ],
)
def test_a_wrong_option_is_named_with_what_would_be_right(model, pair, words):
    with pytest.raises(UserError) as error:
        read_options(model, [pair])
    assert all(word in str(error.value) for word in words), error.value


def test_a_key_as_value_and_as_table_is_an_error():
    with pytest.raises(UserError, match="single value"):
        read_options(SlurmOptions, ["sbatch=x", "sbatch.nice=1"])


def test_runs_on_processors_get_their_threads_and_the_local_workers_environment():
    resources = node_resources(NodeOptions(), "auto", devices=2, threads=3)
    assert (resources.device, resources.devices, resources.threads, resources.loader_workers) == ("cpu", 2, 3, 0)
    assert resources.environments == ({"OMP_NUM_THREADS": "3"} | ALLOCATOR,)
    assert resources.cpus == 6
    assert resources.optimisations == ("matrix-product", "float32-depthwise")


def test_runs_on_gpus_need_none_on_this_machine(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for options, device in ((NodeOptions(gpus=1), "auto"), (NodeOptions(), "cuda"), (NodeOptions(gpus=0.5), "cuda")):
        resources = node_resources(options, device, devices=1, threads=1)
        assert resources.device == "cuda"
        assert resources.environments[0]["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert resources.loader_workers == cluster.LOADER_CPUS
    assert node_resources(NodeOptions(), "cuda", 4, 1).gpus == 4
    assert node_resources(NodeOptions(gpus=2, cpus=16), "cuda", 2, 1).loader_workers == 7


@pytest.mark.parametrize(
    ("options", "device", "devices", "words"),
    [
        ({}, "mps", 1, ["--device mps", "local"]),
        ({"gpus": 1}, "cpu", 1, ["gpus=1", "--device cuda"]),
        ({"gpus": 0}, "cuda", 1, ["gpus=0", "--device cuda"]),
        ({"gpus": 2}, "cuda", 1, ["gpus=2", "--devices-per-run", "0.5"]),
        ({"gpus": 0.5}, "cuda", 2, ["gpus=0.5", "--devices-per-run says, 2"]),
        ({"cpus": 3}, "cpu", 4, ["cpus=3", "at least 4"]),
    ],
)
def test_shares_that_do_not_fit_each_other_are_refused(options, device, devices, words):
    with pytest.raises(UserError) as error:
        node_resources(NodeOptions(**options), device, devices, 1)
    assert all(word in str(error.value) for word in words), error.value


def test_what_a_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("MALLOC_TOP_PAD_", "4096")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    kept = users_own({"MALLOC_TOP_PAD_": "1", "OMP_NUM_THREADS": "2"})
    assert kept == {"MALLOC_TOP_PAD_": "4096", "OMP_NUM_THREADS": "2"}


def finish(one: RunRequest) -> Event:
    one.folder.finish(make_record(one.spec.variant, one.spec.seed), {})
    return Event("finished", one)


class FakeQueue:
    """Ends each run at once as `script` says for its seed, try by try; the last word holds for all further ones."""

    def __init__(self, script):
        self.script = script
        self.tries = Counter()
        self.open_runs = {}
        self.most = 0
        self.closed = False

    def open(self):
        yield

    def submit(self, requests):
        for one in requests:
            self.open_runs[one.spec.seed] = one
        self.most = max(self.most, len(self.open_runs))

    def ended(self):
        for seed, one in list(self.open_runs.items()):
            words = self.script.get(seed, ["finish"])
            word = words[min(self.tries[seed], len(words) - 1)]
            self.tries[seed] += 1
            del self.open_runs[seed]
            match word:
                case "finish":
                    yield finish(one)
                case "finish untold":
                    finish(one)
                    yield Event("lost", one, "node died")
                case "epoch, lost":
                    scratch = one.folder.path / "scratch"
                    scratch.write_text("another file, as each checkpoint is")
                    scratch.replace(one.folder.checkpoint_file)
                    yield Event("lost", one, "node died")
                case "lost":
                    yield Event("lost", one, "node died")

    def close(self):
        self.closed = True


def watch(root, script, runs=1, at_once=None):
    queue = FakeQueue(script)
    requests = [request(root, seed) for seed in range(runs)]
    ends = [
        event
        for event in Executor(lambda requests: queue, at_once).execute(requests)
        if event and event.kind != "started"
    ]
    assert queue.closed
    return queue, {event.request.spec.seed: event for event in ends}


def test_a_run_whose_node_died_is_done_by_another_one(tmp_path):
    queue, ends = watch(tmp_path, {1: ["lost", "finish"]}, runs=3)
    assert {seed: event.kind for seed, event in ends.items()} == dict.fromkeys(range(3), "finished")
    assert queue.tries == {0: 1, 1: 2, 2: 1}


def test_a_run_that_is_lost_again_and_again_is_given_up_with_its_cause(tmp_path):
    queue, ends = watch(tmp_path, {0: ["lost"]}, runs=2)
    assert queue.tries[0] == TRIES
    assert ends[0].kind == "failed"
    assert ends[0].cause == f"node died, {TRIES} times without a new checkpoint"
    assert ends[0].request.folder.failure().cause == ends[0].cause
    assert ends[1].kind == "finished"


def test_a_run_that_gets_on_is_never_given_up(tmp_path):
    losses = 3 * TRIES
    queue, ends = watch(tmp_path, {0: ["epoch, lost"] * losses + ["finish"]})
    assert ends[0].kind == "finished"
    assert queue.tries[0] == losses + 1
    patience = ["epoch, lost"] * losses + ["lost"] * (TRIES - 1)
    queue, ends = watch(tmp_path, {1: patience}, runs=2)
    assert ends[1].kind == "failed"
    assert queue.tries[1] == losses + TRIES - 1, "the last loss with an epoch is the first of the row"


def test_files_are_believed_before_the_engine(tmp_path):
    queue, ends = watch(tmp_path, {0: ["finish untold"]})
    assert ends[0].kind == "finished"
    assert queue.tries[0] == 1


def test_what_is_finished_is_not_handed_over(tmp_path):
    write_record(Study(tmp_path), make_record(PLAIN, 0))
    queue, ends = watch(tmp_path, {}, runs=2)
    assert sorted(ends) == [0, 1]
    assert queue.tries == {1: 1}


@pytest.mark.parametrize(("at_once", "most"), [(2, 2), (None, 5)])
def test_no_more_runs_are_open_than_allowed(tmp_path, at_once, most):
    queue, ends = watch(tmp_path, {}, runs=5, at_once=at_once)
    assert queue.most == most
    assert len(ends) == 5


def test_a_run_under_way_is_told_as_begun_once(tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "LOOK_S", 0)
    one = request(tmp_path, 0)

    class Slow(FakeQueue):
        def ended(self):
            self.tries["looks"] += 1
            if self.tries["looks"] == 2:
                one.folder.progress_file.write_text('{"epoch": 1, "epochs": 2}')
            return super().ended() if self.tries["looks"] == 5 else ()

    events = [event.kind for event in Executor(lambda requests: Slow({})).execute([one]) if event]
    assert events == ["started", "finished"]


def test_the_queue_is_closed_whatever_ends_the_executor(tmp_path):
    class Endless(FakeQueue):
        def ended(self):
            return ()

    queue = Endless({})
    events = Executor(lambda requests: queue).execute([request(tmp_path, 0)])
    next(events)
    next(events)
    assert not queue.closed
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt)
    assert queue.closed


def test_a_finished_run_is_not_done_again_on_its_node(tmp_path, monkeypatch):
    one = request(tmp_path, 0)
    finish(one)
    monkeypatch.setattr("senet_ablate.execution.worker.attempt", lambda request: pytest.fail("it is finished"))
    assert do(one) == Event("finished", one)
