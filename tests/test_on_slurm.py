"""Runs as Slurm jobs: with a queue that is made up, and (marked `cluster`) with Slurm's own daemons on this machine."""

import getpass
import os
import pickle
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from cluster import (
    RUNS,
    assert_same_results,
    begin,
    end,
    kill,
    processes,
    records,
    under_way,
    undisturbed,
    wait_for,
)
from helpers import PROTOCOL, make_record

from senet_ablate import on_slurm, pool
from senet_ablate.cli import main
from senet_ablate.errors import UserError
from senet_ablate.executor import Event, RunRequest
from senet_ablate.on_slurm import Resumed, SlurmOptions, slurm_executor
from senet_ablate.remote import node_resources
from senet_ablate.specs import Variant
from senet_ablate.store import RunFolder


def request(root: Path, seed: int) -> RunRequest:
    spec = PROTOCOL.run_spec(Variant(), seed)
    folder = RunFolder(root / spec.run_id)
    folder.path.mkdir(exist_ok=True)
    return RunRequest(spec=spec, folder=folder)


def test_without_submitit_or_slurm_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(main, ["run", "ratio", "--executor", "slurm"])
    assert result.exit_code == 2
    assert "no sbatch on this machine" in result.stderr
    monkeypatch.setitem(sys.modules, "submitit", None)
    result = CliRunner().invoke(main, ["run", "ratio"], env={"SENET_ABLATE_EXECUTOR": "slurm"})
    assert result.exit_code == 2
    assert "pip install 'senet-ablate[slurm]'" in result.stderr
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
def slurm(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    made_up = MadeUpSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made_up.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(pool, "TICK_S", 0.01)
    for name in ("LOOK_S", "QUEUE_S", "GRACE_S"):
        monkeypatch.setattr(on_slurm, name, 0.0)
    return made_up


def events(root, runs=1, jobs=None, say=lambda text: None, **options):
    given = SlurmOptions(**options)
    executor = slurm_executor(given, node_resources(given, "auto", 1, 2), jobs, say)
    return executor.execute([request(root, seed) for seed in range(runs)])


def ends(found):
    return [event for event in found if event and event.kind != "started"]


def test_a_job_array_asks_for_what_was_typed(slurm, tmp_path):
    study = tmp_path / "a study"
    study.mkdir()
    slurm.tell("7_0|RUNNING|None", "7_1|PENDING|Resources")
    typed = {"partition": "gpu", "account": "ours", "minutes": 90, "memory_gb": 1.5, "sbatch": {"nice": "100"}}
    found = events(study, runs=2, jobs=1, gpus=1, cpus=5, **typed)
    next(found)
    lines = slurm.script.splitlines()
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
        assert f"#SBATCH {line}" in lines, slurm.script
    assert any(line.startswith("#SBATCH --signal=") for line in lines), "told before the time is over"
    assert 'export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-67108864}"' in lines
    assert 'export CUBLAS_WORKSPACE_CONFIG="${CUBLAS_WORKSPACE_CONFIG:-:4096:8}"' in lines
    found.close()
    assert slurm.asked("scancel") == ["7"], "the whole array by its number"
    assert not list(study.glob(".slurm/*"))


def test_a_job_that_left_the_queue_without_a_result_is_repeated_and_then_given_up(slurm, tmp_path):
    slurm.tell("7|OUT_OF_MEMORY|OutOfMemory")
    (event,) = ends(events(tmp_path))
    assert event.kind == "failed"
    assert "OUT_OF_MEMORY (OutOfMemory)" in event.cause
    assert f"{pool.TRIES} times" in event.cause
    assert event.request.folder.failure().cause == event.cause


def test_a_job_that_slurm_forgot_is_finished_if_its_files_say_so(slurm, tmp_path):
    found = events(tmp_path)
    slurm.tell("7|RUNNING|None")
    assert next(found) is None
    one = request(tmp_path, 0)
    one.folder.finish(make_record(one.spec.variant, 0), {})
    slurm.tell()
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
def test_a_job_that_will_never_be_at_work_fails_with_slurms_reason(slurm, tmp_path, row, words):
    slurm.tell(row)
    (event,) = ends(events(tmp_path))
    assert event.kind == "failed"
    assert words in event.cause


@pytest.mark.parametrize("row", ["7|PENDING|JobHeldUser", "7|PENDING|Priority", "7|COMPLETING|None", "7|REQUEUED|None"])
def test_a_job_that_waits_is_waited_for(slurm, tmp_path, row):
    slurm.tell(row)
    found = events(tmp_path)
    assert [next(found) for _ in range(5)] == [None] * 5
    found.close()
    assert slurm.asked("scancel") == ["7"]


def test_the_result_of_a_job_is_its_event(slurm, tmp_path):
    slurm.tell("7|RUNNING|None")
    found = events(tmp_path)
    assert next(found) is None
    (folder,) = tmp_path.glob(".slurm/*")
    event = Event("failed", request(tmp_path, 0), "out of luck")
    (folder / "7_0_result.pkl").write_bytes(pickle.dumps(("success", event)))
    assert ends(found) == [event]


def test_an_error_outside_of_the_run_is_told_by_its_last_line(slurm, tmp_path):
    slurm.tell("7|RUNNING|None")
    found = events(tmp_path)
    assert next(found) is None
    (folder,) = tmp_path.glob(".slurm/*")
    trace = "Traceback (most recent call last):\n  somewhere\nModuleNotFoundError: No module named 'senet_ablate'\n"
    (folder / "7_0_result.pkl").write_bytes(pickle.dumps(("error", trace)))
    (event,) = ends(found)
    assert event.cause == "in its Slurm job: ModuleNotFoundError: No module named 'senet_ablate'"
    assert folder.exists(), "the logs are kept"


def test_a_silent_slurm_ends_the_watch(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(on_slurm, "SILENCE_S", 0.05)
    slurm.tell("7|RUNNING|None")
    found = events(tmp_path)
    next(found)
    slurm.put("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UserError, match="has not answered squeue"):
        ends(found)


def test_what_slurm_refuses_is_told_in_its_words(slurm, tmp_path):
    slurm.put("sbatch", "echo 'sbatch: error: invalid partition specified: gqu' >&2; exit 1")
    with pytest.raises(UserError, match="invalid partition specified: gqu"):
        ends(events(tmp_path, partition="gqu"))


def test_jobs_of_an_earlier_call_are_waited_for(slurm, tmp_path):
    slurm.tell("3_0|RUNNING|None", "3_1|COMPLETED|None", of="earlier")
    told = []
    found = events(tmp_path, say=told.append)
    assert [next(found) for _ in range(3)] == [None] * 3
    (line,) = told
    assert line.startswith("1 jobs of an earlier call")
    assert not (slurm.folder / "sbatch.script").exists()
    one = request(tmp_path, 0)
    one.folder.finish(make_record(one.spec.variant, 0), {})
    slurm.tell("3_0|COMPLETED|None", of="earlier")
    assert [event.kind for event in ends(found)] == ["found"]
    assert not (slurm.folder / "sbatch.script").exists(), "done meanwhile"


def test_a_run_that_gets_no_epoch_done_in_its_time_is_not_put_back_for_ever(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr(on_slurm, "do", lambda request: Event("finished", request))
    one, job = request(tmp_path, 0), Resumed()
    for _ in range(pool.TRIES - 1):
        job(one)
        job = job.checkpoint(one).function
    job(one)
    with pytest.raises(UserError, match="minutes="):
        job.checkpoint(one)
    one.folder.checkpoint_file.write_text("an epoch")
    again = job.checkpoint(one)
    assert again.args == (one,)
    assert again.function.fruitless == 0


CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until the credential of its first life has expired.
AuthInfo=socket={root}/munge.socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=5
MinJobAge=10
SlurmdTimeout=10
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Daemons:
    """A controller and two nodes of one processor each on this machine, with their own key for munge."""

    def __init__(self, root):
        self.root = root
        self.started = {}
        self.environment = {"SLURM_CONF": f"{root}/slurm.conf", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}

    def start(self, name, *command):
        found = shutil.which(command[0], path=self.environment["PATH"])
        with (self.root / f"{name}.out").open("ab") as log:
            self.started[name] = subprocess.Popen(
                [found, *command[1:]],
                env=os.environ | self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_all(self):
        for folder in ("state", "spool-n1", "spool-n2"):
            (self.root / folder).mkdir()
        (self.root / "munge.key").write_bytes(os.urandom(128))
        (self.root / "munge.key").chmod(0o400)
        config = CONFIG.format(root=self.root, host=socket.gethostname(), user=getpass.getuser(), ports=free_ports(3))
        (self.root / "slurm.conf").write_text(config)
        places = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.root}/munge.{name}" for option, name in places.items()]
        self.start("munged", "munged", "--foreground", "--force", *options)
        wait_for((self.root / "munge.socket").exists, 30)
        self.start("slurmctld", "slurmctld", "-D", "-i")
        for node in ("n1", "n2"):
            self.start(node, "slurmd", "-D", "-N", node)
        wait_for(lambda: self.ask("sinfo", "-h", "-o", "%T %D").split() == ["idle", "2"], 60)

    def ask(self, *command):
        return subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=60
        ).stdout

    def jobs(self, state="RUNNING"):
        return self.ask("squeue", "-h", "-r", f"--states={state}", "-o", "%i").split()

    def stop(self):
        self.ask("scancel", "--state=RUNNING", f"--user={getpass.getuser()}")
        kill(*processes(f"SLURM_CONF={self.root}/slurm.conf"))
        for process in self.started.values():
            process.kill()
            process.wait()


def task_of(job):
    """The process that trains; the job's shell and srun are not of its step."""
    array, _, task = job.partition("_")
    step = (f"SLURM_ARRAY_JOB_ID={array}\0", f"SLURM_ARRAY_TASK_ID={task}\0", "SLURM_STEP_ID=0\0")
    return processes("submitit.core._submit", *step)


@pytest.fixture
def daemons():
    pytest.importorskip("submitit", reason="pip install 'senet-ablate[slurm]'")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not on this machine: apt-get install slurm-wlm munge")
    # Sockets have short names.
    root = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    root.chmod(0o755)
    cluster = Daemons(root)
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(root, ignore_errors=True)


def start_through_slurm(cut, daemons):
    return begin(cut, "--executor", "slurm", "--executor-option", "minutes=10", environment=daemons.environment)


@pytest.mark.cluster
def test_a_study_survives_a_requeue_a_killed_job_and_a_dead_node(tmp_path, daemons):
    whole, cut = undisturbed(tmp_path / "whole"), tmp_path / "cut"
    driver = start_through_slurm(cut, daemons)
    wait_for(lambda: len(under_way(cut)) >= 2, driver=driver)
    first = daemons.jobs()[0]
    # What Slurm sends before the time is over, or when it pre-empts.
    kill(*task_of(first), by=signal.SIGUSR2)
    wait_for(lambda: "Restarts=1" in daemons.ask("scontrol", "show", "job", first), driver=driver)

    # A killed job leaves no word of its end; without accounting Slurm forgets it soon.
    wait_for(lambda: under_way(cut) and [job for job in daemons.jobs() if job != first], driver=driver)
    victim = next(job for job in daemons.jobs() if job != first)
    kill(*task_of(victim))
    wait_for(lambda: victim not in daemons.jobs(), driver=driver)

    # A node with its job.
    wait_for(lambda: "n2" in daemons.ask("squeue", "-h", "--states=RUNNING", "-o", "%N").split(), driver=driver)
    kill(daemons.started["n2"].pid, *processes("SLURMD_NODENAME=n2", str(daemons.root)))
    code, told = end(driver)
    assert code == 0, told
    assert f"training {RUNS} on cpu, in Slurm's queue" in " ".join(told.split())
    assert_same_results(whole, cut)
    assert any(record["provenance"]["resumed_at_epoch"] for record in records(cut).values())
    assert daemons.jobs("all") == [] or not daemons.jobs("RUNNING,PENDING")


@pytest.mark.cluster
def test_ctrl_c_cancels_the_jobs_and_a_killed_drivers_jobs_are_waited_for(tmp_path, daemons):
    whole, cut = undisturbed(tmp_path / "whole"), tmp_path / "cut"
    driver = start_through_slurm(cut, daemons)
    wait_for(lambda: under_way(cut), driver=driver)
    driver.send_signal(signal.SIGINT)
    code, told = end(driver, 60)
    assert code == 130, told
    assert "Traceback" not in told
    wait_for(lambda: not daemons.jobs("RUNNING,PENDING,COMPLETING"), 60)
    assert len(records(cut)) < RUNS
    assert not list(cut.glob("results/small/.slurm/*"))

    driver = start_through_slurm(cut, daemons)
    wait_for(lambda: under_way(cut) and daemons.jobs(), driver=driver)
    driver.kill()
    driver.communicate()
    time.sleep(1)
    assert daemons.jobs("RUNNING,PENDING"), "jobs do not need their driver"
    code, told = end(start_through_slurm(cut, daemons))
    assert code == 0, told
    assert "jobs of an earlier call are still in the queue" in " ".join(told.split())
    assert_same_results(whole, cut)
