"""Runs as Ray tasks. What needs Ray itself is marked `cluster`."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import cluster
import pytest
from click.testing import CliRunner

from senet_ablate.cli.main import main


def test_without_ray_the_message_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(main, ["run", "ratio", "--executor", "ray"])
    assert result.exit_code == 2
    assert "pip install '.[ray]'" in result.stderr
    assert not list(tmp_path.iterdir())


class Nodes:
    """A head and further nodes, each of one processor; every process of a node carries its name."""

    def __init__(self, name):
        self.name = name
        self.address = f"127.0.0.1:{cluster.free_ports(1)[0]}"
        self.started = []
        # Ray's versions differ in whether they ask for a token; this one is for these nodes alone.
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def start(self, *arguments):
        mark = f"SENET_TEST_NODE={self.name}-{len(self.started)}-"
        key, _, value = mark.partition("=")
        command = [Path(sys.executable).with_name("ray"), "start", "--num-cpus=1", "--object-store-memory=100000000"]
        log = subprocess.run(
            [*command, "--disable-usage-stats", *arguments],
            env=os.environ | self.environment | {key: value},
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.started.append(mark)
        assert log.returncode == 0, log.stdout + log.stderr
        return mark

    def head(self):
        host, _, port = self.address.partition(":")
        return self.start("--head", f"--node-ip-address={host}", f"--port={port}", "--include-dashboard=false")

    def join(self):
        # An address of its own, so that a driver does not take this node for the one it sits on.
        return self.start(f"--address={self.address}", f"--node-ip-address=127.0.0.{len(self.started) + 1}")

    def drive(self, folder):
        """Begin the study through these nodes."""
        option = f"address={self.address}"
        return cluster.begin(folder, "--executor", "ray", "--executor-option", option, environment=self.environment)

    def stop(self):
        for mark in self.started:
            cluster.kill(*cluster.processes(mark))
        noted = Path(tempfile.gettempdir(), "ray", "ray_current_cluster")  # Ray would look for it for long
        if noted.exists() and noted.read_text().strip() == self.address:
            noted.unlink()


@pytest.fixture
def nodes(tmp_path):
    pytest.importorskip("ray", reason="pip install '.[ray]'")
    started = Nodes(tmp_path.name)
    yield started
    started.stop()


@pytest.mark.cluster
def test_a_study_survives_the_death_of_a_node_and_uses_one_that_comes(tmp_path, nodes):
    whole = cluster.undisturbed(tmp_path / "whole")
    nodes.head()
    second = nodes.join()
    cut = tmp_path / "cut"
    driver = nodes.drive(cut)
    cluster.wait_for(lambda: len(cluster.under_way(cut)) >= 2, driver=driver)  # one on each node
    cluster.kill(*cluster.processes(second))
    nodes.join()
    assert f"training {cluster.RUNS} on cpu, by Ray" in cluster.finished(driver)
    cluster.assert_same_results(whole, cut)
    assert any(record["provenance"]["resumed_at_epoch"] for record in cluster.records(cut).values())


@pytest.mark.cluster
def test_ctrl_c_ends_the_tasks_and_the_same_command_goes_on_in_a_cluster_of_its_own(tmp_path, nodes):
    whole = cluster.undisturbed(tmp_path / "whole")
    nodes.head()
    cut = tmp_path / "cut"
    driver = nodes.drive(cut)
    cluster.wait_for(lambda: cluster.under_way(cut), driver=driver)
    cluster.interrupted(driver)
    nodes.stop()
    assert len(cluster.records(cut)) < cluster.RUNS
    cluster.finished(cluster.begin(cut, "--executor", "ray", "--jobs", "2"))
    cluster.assert_same_results(whole, cut)


@pytest.mark.cluster
def test_a_worker_finds_its_environment_when_it_starts(tmp_path):
    """glibc reads its settings before Python does anything."""
    pytest.importorskip("ray", reason="pip install '.[ray]'")
    script = tmp_path / "look.py"
    script.write_text(LOOK)
    told = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout.splitlines()[-1])
    assert found["MALLOC_TOP_PAD_"] == str(1 << 26)
    assert found["OMP_NUM_THREADS"] == "1"


LOOK = """
import json
from unittest import mock
from pathlib import Path
import ray
from senet_ablate.execution.ray import RayOptions, RayQueue
from senet_ablate.execution.cluster import node_resources

def look(request):
    pairs = Path("/proc/self/environ").read_bytes().decode().split("\\0")
    return dict(pair.partition("=")[::2] for pair in pairs)

with mock.patch("senet_ablate.execution.ray.do", look):
    options = RayOptions()
    queue = RayQueue(options, node_resources(options, "cpu", 1, 1), print)
    list(queue.open())
    queue.submit([None])
    found = []
    while not found:
        found = list(queue.ended())
    queue.close()
print(json.dumps(found[0]))
"""
