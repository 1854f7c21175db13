"""Runs as Slurm jobs, with a queue that is made up."""

import os
import pickle
import stat
import sys

import pytest
from click.testing import CliRunner
from helpers import PLAIN, make_record, request, write_record

from senet_ablate.cli.main import main
from senet_ablate.errors import UserError
from senet_ablate.execution import executor, slurm
from senet_ablate.execution.cluster import node_resources
from senet_ablate.execution.slurm import Resumed, SlurmOptions, slurm_executor
from senet_ablate.results.store import Study
from senet_ablate.training.request import Event


def test_without_submitit_or_slurm_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(main, ["run", "ratio", "--executor", "slurm"])
    assert result.exit_code == 2
    assert "no sbatch on this machine" in result.stderr
    monkeypatch.setitem(sys.modules, "submitit", None)
    result = CliRunner().invoke(main, ["run", "ratio"], env={"SENET_ABLATE_EXECUTOR": "slurm"})
    assert result.exit_code == 2
    assert "pip install '.[slurm]'" in result.stderr
    assert not list(tmp_path.iterdir())


class MadeUpSlurm:
    """Commands that stand for Slurm's: `sbatch` keeps what it is given, then `squeue` tells what a test has written."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.put("sbatch", 'cp "$1" "$0.script"; echo "Submitted batch job 7"')
        self.put("srun", "exit 1")
        self.put("squeue", f'cat "$0.earlier"; test ! -e {folder}/sbatch.script || cat "$0.told"')
        self.put("scancel", 'echo "$@" >> "$0.asked"')
        self.tell()
        self.tell(of="earlier")

    def put(self, name, script):
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def tell(self, *rows, of="told"):
        (self.folder / f"squeue.{of}").write_text("".join(f"{row}\n" for row in rows))

    def asked(self, name):
        path = self.folder / f"{name}.asked"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def script(self):
        return (self.folder / "sbatch.script").read_text()


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    made_up = MadeUpSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made_up.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(executor, "TICK_S", 0.01)
    for name in ("LOOK_S", "QUEUE_S", "GRACE_S"):
        monkeypatch.setattr(slurm, name, 0.0)
    return made_up


def events(root, runs=1, jobs=None, say=lambda text: None, **options):
    given = SlurmOptions(**options)
    executor = slurm_executor(given, node_resources(given, "auto", 1, 2), jobs, say)
    return executor.execute([request(root, seed) for seed in range(runs)])


def ends(found):
    return [event for event in found if event and event.kind != "started"]


def test_a_job_array_asks_for_what_was_typed(fake_slurm, tmp_path):
    study = tmp_path / "a study"
    study.mkdir()
    fake_slurm.tell("7_0|RUNNING|None", "7_1|PENDING|Resources")
    typed = {"partition": "gpu", "account": "ours", "minutes": 90, "memory_gb": 1.5, "sbatch": {"nice": "100"}}
    found = events(study, runs=2, jobs=1, gpus=1, cpus=5, **typed)
    next(found)
    lines = fake_slurm.script.splitlines()
    for line in (
        "--partition=gpu",
        "--account=ours",
        "--time=90",
        "--mem=1536MB",
        "--gpus-per-node=1",
        "--cpus-per-task=5",
        "--nice=100",
        "--array=0-1%1",
    ):
        assert f"#SBATCH {line}" in lines, fake_slurm.script
    assert any(line.startswith("#SBATCH --signal=") for line in lines), "told before the time is over"
    assert 'export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-67108864}"' in lines
    assert 'export CUBLAS_WORKSPACE_CONFIG="${CUBLAS_WORKSPACE_CONFIG:-:4096:8}"' in lines
    found.close()
    assert fake_slurm.asked("scancel") == ["7"], "the whole array by its number"
    assert not list(study.glob(".slurm/*"))


def test_a_job_that_left_the_queue_without_a_result_is_repeated_and_then_given_up(fake_slurm, tmp_path):
    fake_slurm.tell("7|OUT_OF_MEMORY|OutOfMemory")
    (event,) = ends(events(tmp_path))
    assert event.kind == "failed"
    assert "OUT_OF_MEMORY (OutOfMemory)" in event.cause
    assert f"{executor.TRIES} times" in event.cause
    assert event.request.folder.failure().cause == event.cause


def test_a_job_that_slurm_forgot_is_finished_if_its_files_say_so(fake_slurm, tmp_path):
    found = events(tmp_path)
    fake_slurm.tell("7|RUNNING|None")
    assert next(found) is None
    one = request(tmp_path, 0)
    one.folder.finish(make_record(one.spec.variant, 0), {})
    fake_slurm.tell()
    (event,) = ends(found)
    assert event.kind == "finished"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("7|CANCELLED|None", "is CANCELLED"),
        ("7|PENDING|launch failed requeued held", "launch failed requeued held"),
        ("7|PENDING|BadConstraints", "BadConstraints"),
    ],
)
def test_a_job_that_will_never_be_at_work_fails_with_slurms_reason(fake_slurm, tmp_path, row, words):
    fake_slurm.tell(row)
    (event,) = ends(events(tmp_path))
    assert event.kind == "failed"
    assert words in event.cause


@pytest.mark.parametrize("row", ["7|PENDING|JobHeldUser", "7|PENDING|Priority", "7|COMPLETING|None", "7|REQUEUED|None"])
def test_a_job_that_waits_is_waited_for(fake_slurm, tmp_path, row):
    fake_slurm.tell(row)
    found = events(tmp_path)
    assert [next(found) for _ in range(5)] == [None] * 5
    found.close()
    assert fake_slurm.asked("scancel") == ["7"]


def test_the_result_of_a_job_is_its_event(fake_slurm, tmp_path):
    fake_slurm.tell("7|RUNNING|None")
    found = events(tmp_path)
    assert next(found) is None
    (folder,) = tmp_path.glob(".slurm/*")
    event = Event("failed", request(tmp_path, 0), "out of luck")
    (folder / "7_0_result.pkl").write_bytes(pickle.dumps(("success", event)))
    assert ends(found) == [event]


def test_an_error_outside_of_the_run_is_told_by_its_last_line(fake_slurm, tmp_path):
    fake_slurm.tell("7|RUNNING|None")
    found = events(tmp_path)
    assert next(found) is None
    (folder,) = tmp_path.glob(".slurm/*")
    trace = "Traceback (most recent call last):\n  somewhere\nModuleNotFoundError: No module named 'senet_ablate'\n"
    (folder / "7_0_result.pkl").write_bytes(pickle.dumps(("error", trace)))
    (event,) = ends(found)
    assert event.cause == "in its Slurm job: ModuleNotFoundError: No module named 'senet_ablate'"
    assert folder.exists(), "the logs are kept"


def test_a_silent_slurm_ends_the_watch(fake_slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "SILENCE_S", 0.05)
    fake_slurm.tell("7|RUNNING|None")
    found = events(tmp_path)
    next(found)
    fake_slurm.put("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UserError, match="has not answered squeue"):
        ends(found)


def test_what_slurm_refuses_is_told_in_its_words(fake_slurm, tmp_path):
    fake_slurm.put("sbatch", "echo 'sbatch: error: invalid partition specified: gqu' >&2; exit 1")
    with pytest.raises(UserError, match="invalid partition specified: gqu"):
        ends(events(tmp_path, partition="gqu"))


def test_jobs_of_an_earlier_call_are_waited_for(fake_slurm, tmp_path):
    fake_slurm.tell("3_0|RUNNING|None", "3_1|COMPLETED|None", of="earlier")
    told = []
    found = events(tmp_path, say=told.append)
    assert [next(found) for _ in range(3)] == [None] * 3
    (line,) = told
    assert line.startswith("1 jobs of an earlier call")
    assert not (fake_slurm.folder / "sbatch.script").exists()
    write_record(Study(tmp_path), make_record(PLAIN, 0))
    fake_slurm.tell("3_0|COMPLETED|None", of="earlier")
    assert [event.kind for event in ends(found)] == ["found"]
    assert not (fake_slurm.folder / "sbatch.script").exists(), "done meanwhile"


def test_a_run_that_gets_no_epoch_done_in_its_time_is_not_put_back_for_ever(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr(slurm, "do", lambda request: Event("finished", request))
    one, job = request(tmp_path, 0), Resumed()
    for _ in range(executor.TRIES - 1):
        job(one)
        job = job.checkpoint(one).function
    job(one)
    with pytest.raises(UserError, match="minutes="):
        job.checkpoint(one)
    one.folder.checkpoint_file.write_text("an epoch")
    again = job.checkpoint(one)
    assert again.args == (one,)
    assert again.function.fruitless == 0
