"""Studies through Slurm's own daemons, which start on this machine (marked `cluster`)."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import cluster
import pytest

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
        config = CONFIG.format(
            root=self.root, host=socket.gethostname(), user=getpass.getuser(), ports=cluster.free_ports(3)
        )
        (self.root / "slurm.conf").write_text(config)
        places = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.root}/munge.{name}" for option, name in places.items()]
        self.start("munged", "munged", "--foreground", "--force", *options)
        cluster.wait_for((self.root / "munge.socket").exists, 30)
        self.start("slurmctld", "slurmctld", "-D", "-i")
        for node in ("n1", "n2"):
            self.start(node, "slurmd", "-D", "-N", node)
        cluster.wait_for(lambda: self.ask("sinfo", "-h", "-o", "%T %D").split() == ["idle", "2"], 60)

    def ask(self, *command):
        return subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=60
        ).stdout

    def jobs(self, state="RUNNING"):
        return self.ask("squeue", "-h", "-r", f"--states={state}", "-o", "%i").split()

    def stop(self):
        self.ask("scancel", "--state=RUNNING", f"--user={getpass.getuser()}")
        cluster.kill(*cluster.processes(f"SLURM_CONF={self.root}/slurm.conf"))
        for process in self.started.values():
            process.kill()
            process.wait()


def task_of(job):
    """The process that trains; the job's shell and srun are not of its step."""
    array, _, task = job.partition("_")
    step = (f"SLURM_ARRAY_JOB_ID={array}\0", f"SLURM_ARRAY_TASK_ID={task}\0", "SLURM_STEP_ID=0\0")
    return cluster.processes("submitit.core._submit", *step)


@pytest.fixture
def daemons():
    pytest.importorskip("submitit", reason="pip install '.[slurm]'")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not on this machine: apt-get install slurm-wlm munge")
    # Sockets have short names.
    root = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    root.chmod(0o755)
    started = Daemons(root)
    try:
        started.start_all()
        yield started
    finally:
        started.stop()
        shutil.rmtree(root, ignore_errors=True)


def start_through_slurm(cut, daemons):
    return cluster.begin(cut, "--executor", "slurm", "--executor-option", "minutes=10", environment=daemons.environment)


@pytest.mark.cluster
def test_a_study_survives_a_requeue_a_killed_job_and_a_dead_node(tmp_path, daemons):
    whole, cut = cluster.undisturbed(tmp_path / "whole"), tmp_path / "cut"
    driver = start_through_slurm(cut, daemons)
    cluster.wait_for(lambda: len(cluster.under_way(cut)) >= 2, driver=driver)
    first = daemons.jobs()[0]
    # What Slurm sends before the time is over, or when it pre-empts.
    cluster.kill(*task_of(first), by=signal.SIGUSR2)
    cluster.wait_for(lambda: "Restarts=1" in daemons.ask("scontrol", "show", "job", first), driver=driver)

    # A killed job leaves no word of its end; without accounting Slurm forgets it soon.
    cluster.wait_for(lambda: cluster.under_way(cut) and [job for job in daemons.jobs() if job != first], driver=driver)
    victim = next(job for job in daemons.jobs() if job != first)
    cluster.kill(*task_of(victim))
    cluster.wait_for(lambda: victim not in daemons.jobs(), driver=driver)

    # A node with its job.
    cluster.wait_for(lambda: "n2" in daemons.ask("squeue", "-h", "--states=RUNNING", "-o", "%N").split(), driver=driver)
    cluster.kill(daemons.started["n2"].pid, *cluster.processes("SLURMD_NODENAME=n2", str(daemons.root)))
    assert f"training {cluster.RUNS} on cpu, in Slurm's queue" in cluster.finished(driver)
    cluster.assert_same_results(whole, cut)
    assert any(record["provenance"]["resumed_at_epoch"] for record in cluster.records(cut).values())
    assert not daemons.jobs("RUNNING,PENDING")


@pytest.mark.cluster
def test_ctrl_c_cancels_the_jobs_and_a_killed_drivers_jobs_are_waited_for(tmp_path, daemons):
    whole, cut = cluster.undisturbed(tmp_path / "whole"), tmp_path / "cut"
    driver = start_through_slurm(cut, daemons)
    cluster.wait_for(lambda: cluster.under_way(cut), driver=driver)
    cluster.interrupted(driver)
    cluster.wait_for(lambda: not daemons.jobs("RUNNING,PENDING,COMPLETING"), 60)
    assert len(cluster.records(cut)) < cluster.RUNS
    assert not list(cut.glob("results/small/.slurm/*"))

    driver = start_through_slurm(cut, daemons)
    cluster.wait_for(lambda: cluster.under_way(cut) and daemons.jobs(), driver=driver)
    driver.kill()
    driver.communicate()
    time.sleep(1)
    assert daemons.jobs("RUNNING,PENDING"), "jobs do not need their driver"
    assert "jobs of an earlier call are still in the queue" in cluster.finished(start_through_slurm(cut, daemons))
    cluster.assert_same_results(whole, cut)
