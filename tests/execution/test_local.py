"""The local pool: failures and dying workers do not stop the others, and nothing outlives its driver."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from senet_ablate.execution import executor
from senet_ablate.execution.local import local_executor, warm_up
from senet_ablate.execution.machine import ALLOCATOR
from senet_ablate.results.store import RunFolder
from senet_ablate.spec.network import Network, Variant
from senet_ablate.spec.protocol import DataConfig, Recipe, RunSpec
from senet_ablate.training.request import RunRequest


def request(root: Path, seed: int, epochs: int = 1, **fields) -> RunRequest:
    spec = RunSpec(
        network=Network(backbone="resnet14", width=4, stem="small"),
        data=DataConfig(dataset="digits", resolution=8),
        recipe=Recipe(epochs=epochs, batch_size=64, lr=0.05),
        precision="fp32",
        variant=Variant(),
        seed=seed,
    )
    return RunRequest(spec=spec, folder=RunFolder(root / spec.run_id), **fields)


def workers():
    return [process for process in multiprocessing.active_children() if process.name == "senet-ablate worker"]


def test_all_runs_are_done_and_workers_are_gone_afterwards(tmp_path):
    requests = [request(tmp_path, seed) for seed in range(3)]
    events = [event for event in local_executor([{}, {}]).execute(requests) if event]
    assert sorted(event.kind for event in events) == ["finished"] * 3 + ["started"] * 3
    assert all(one.folder.record() is not None for one in requests)
    assert workers() == []


def test_a_run_that_fails_is_noted_with_its_cause_and_stops_nothing(tmp_path):
    bad = request(tmp_path, 0, data_path=tmp_path / "digits-take-no-path")
    good = request(tmp_path, 1)
    events = [event for event in local_executor([{}]).execute([bad, good]) if event]
    assert [(event.kind, event.request) for event in events if event.kind != "started"] == [
        ("failed", bad),
        ("finished", good),
    ]
    failure = bad.folder.failure()
    assert failure is not None
    assert "digits-take-no-path" in failure.cause
    assert "Traceback" in failure.traceback


def kill_when(condition, events, victim):
    """Pass events on; kill the worker of `victim` as soon as `condition` holds, once."""
    killed = False
    for event in events:
        if not killed and condition():
            (worker,) = workers()
            os.kill(worker.pid, signal.SIGKILL)
            killed = True
        if event:
            yield event
    assert killed


def test_a_killed_worker_is_replaced_and_its_run_goes_on_from_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "TICK_S", 0.05)
    victim = request(tmp_path, 0, epochs=60)
    events = list(
        kill_when(
            victim.folder.checkpoint_file.exists,
            local_executor([{}]).execute([victim, request(tmp_path, 1)]),
            victim,
        )
    )
    assert [event.kind for event in events].count("finished") == 2
    record = victim.folder.record()
    assert record is not None
    assert record.provenance.resumed_at_epoch is not None
    assert record.provenance.resumed_at_epoch >= 1


def test_a_run_that_kills_its_workers_is_given_up_with_its_cause(tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "TICK_S", 0.05)
    monkeypatch.setattr(executor, "TRIES", 1)
    victim, other = request(tmp_path, 0, epochs=60), request(tmp_path, 1)
    events = kill_when(victim.folder.checkpoint_file.exists, local_executor([{}]).execute([victim, other]), victim)
    ends = {event.request.spec.seed: event for event in events if event.kind != "started"}
    assert ends[0].kind == "failed"
    assert "SIGKILL" in ends[0].cause
    assert ends[1].kind == "finished"
    assert victim.folder.failure().cause == ends[0].cause


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="no server there")
def test_workers_are_had_again_when_the_server_that_forks_them_is_killed(tmp_path, monkeypatch):
    """As by the kernel, when memory is short; at the very moment in which it was asked for a worker."""
    connect = forkserver.connect_to_new_process
    killed = []

    def kill_while_it_is_asked(handles):
        if killed:
            return connect(handles)
        forkserver.ensure_running()
        killed.append(forkserver._forkserver._forkserver_pid)
        os.kill(killed[0], signal.SIGSTOP)
        os.waitid(os.P_PID, killed[0], os.WSTOPPED)
        answer = connect(handles)
        os.kill(killed[0], signal.SIGKILL)
        return answer

    monkeypatch.setattr(forkserver, "connect_to_new_process", kill_while_it_is_asked)
    requests = [request(tmp_path, seed) for seed in range(2)]
    events = [event for event in local_executor([{}]).execute(requests) if event]
    assert forkserver._forkserver._forkserver_pid not in [None, *killed]
    assert [event.kind for event in events].count("finished") == 2
    assert workers() == []


INTERRUPTED = """
import os, pathlib, signal, sys, time
from multiprocessing import forkserver
from senet_ablate.execution.local import warm_up
if __name__ == "__main__":
    warm_up()
    server = pathlib.Path(f"/proc/{forkserver._forkserver._forkserver_pid}")
    while "torch" not in (server / "maps").read_text():
        time.sleep(0.001)
    try:
        os.killpg(0, signal.SIGINT)
        time.sleep(20)
    except KeyboardInterrupt:
        print("stopped")
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_ctrl_c_while_the_server_still_imports_is_the_drivers_alone(tmp_path):
    """A terminal sends it to all processes of the command."""
    script = tmp_path / "driver.py"
    script.write_text(INTERRUPTED)
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.stdout, done.stderr) == ("stopped\n", "")


DRIVER = """
import os, sys, pathlib
sys.path[:0] = [sys.argv[1], os.path.join(os.path.dirname(sys.argv[1]), "support")]
from test_local import request
from senet_ablate.execution.local import local_executor
if __name__ == "__main__":
    requests = [request(pathlib.Path(sys.argv[2]), seed, epochs=500) for seed in (0, 1)]
    for event in local_executor([{}, {}]).execute(requests):
        import multiprocessing
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_workers_end_when_their_driver_is_killed(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    with subprocess.Popen(
        [sys.executable, script, Path(__file__).parent, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        while not list(tmp_path.glob("*/progress.json")):
            line = driver.stdout.readline()
        driver.kill()
    pids = [int(word) for word in line.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"workers {alive} outlived their driver"
        time.sleep(0.1)


def test_workers_keep_freed_memory_and_a_users_own_setting(monkeypatch):
    monkeypatch.setenv("MALLOC_TOP_PAD_", "4096")
    for name in ALLOCATOR:
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that what is set here goes with the test
        if name != "MALLOC_TOP_PAD_":
            monkeypatch.delenv(name)
    warm_up()
    assert os.environ["MALLOC_TOP_PAD_"] == "4096"
    assert os.environ["MALLOC_MMAP_THRESHOLD_"] == str(2**30)


UNABLE = """
import os, sys, pathlib
sys.path[:0] = [sys.argv[1], os.path.join(os.path.dirname(sys.argv[1]), "support")]
from test_local import request
from senet_ablate.errors import UserError
from senet_ablate.execution.local import local_executor
if __name__ == "__main__":
    try:
        print(*local_executor([{}, {}]).execute([request(pathlib.Path(sys.argv[2]), seed) for seed in (0, 1)]))
    except UserError as error:
        print(error)
"""


def test_what_workers_cannot_import_is_told_once_with_its_cause(tmp_path):
    """An ImportError the server would swallow, another it would die of, again and again."""
    script = tmp_path / "driver.py"
    script.write_text(UNABLE)
    for error in ("ImportError('libwhatever.so: no such file')", "OSError('libwhatever.so: no such file')"):
        (tmp_path / "pytorch_lightning.py").write_text(f"raise {error}\n")
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, script, Path(__file__).parent, tmp_path]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": path}
        )
        name = error.partition("(")[0]
        told = f"workers cannot import what they need: {name}: libwhatever.so: no such file\n"
        assert (done.stdout, done.stderr) == (told, "")
