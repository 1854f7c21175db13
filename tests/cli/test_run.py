"""The shell, as a user types it: help, errors without tracebacks, and whole studies that survive kill -9."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from senet_ablate.cli.main import main
from senet_ablate.spec.loading import all_ablations, declarations_dir, load_protocol

ABLATIONS = str(declarations_dir().resolve())


def call(*arguments, cwd):
    """Run the command in a process of its own, as `python -m senet_ablate`."""
    return subprocess.run(
        [sys.executable, "-m", "senet_ablate", *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    """Run a command that trains nothing in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("command", ["", *main.commands])
def test_help_teaches_each_command(invoke, command):
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_list_names_all_tables_rows_and_protocols(invoke):
    output = invoke("list").output
    for ablation in all_ablations(Path(ABLATIONS)):
        assert ablation.slug in output
    for path in Path(ABLATIONS, "protocols").glob("*.toml"):
        assert load_protocol(Path(ABLATIONS), path.stem).name in output
    assert "the paper's 25 rows are 17 distinct variants; 15 findings" in " ".join(output.split())


def test_plan_tells_what_tables_share(invoke):
    output = invoke("plan").output
    assert "17 variants, 51 runs, 0 finished, 51 to do." in output
    assert "Time: unknown" in output
    assert "8 variants, 16 runs" in invoke("plan", "ratio", "gate", "--seeds", "2").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "rato"], ["'rato'", "did you mean 'ratio'"]),
        (["plan", "--protocol", "digit"], ["'digit'", "did you mean 'digits'"]),
        (["plan", "--set", "recipe.epoch=3"], ["recipe.epoch = 3", "did you mean 'epochs'"]),
        (["plan", "--set", "recipe.epochs"], ["recipe.epochs", "KEY=VALUE"]),
        (["plan", "--set", "network.width=8"], ["row 'pre'", "reduction = 16", "at most 8"]),
        (["plan", "ratio", "--rows", "r15"], ["'r15'", "did you mean 'r16'"]),
        (["plan", "--protocol", "cifar10-folder"], ["folder", "--classes"]),
        (["plan", "--study", "../elsewhere"], ["'../elsewhere'", "plain folder name"]),
        (["report"], ["no study 'digits'", "begin one"]),
        (["run", "--protocol", "cifar10-folder"], ["--data"]),
        (["run", "--protocol", "cifar10-folder", "--data", "nowhere"], ["nowhere: no such folder", "train/"]),
        (["run", "--data", "somewhere"], ["somewhere", "embedded"]),
    ],
)
def test_a_mistake_is_one_message_with_exit_code_2(invoke, arguments, words):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit), "no traceback"
    told = " ".join(result.stderr.split())
    assert all(word in told for word in words), told


def test_count_of_a_small_protocol_needs_no_data(invoke, tmp_path):
    result = invoke("count", "gate", "--protocol", "digits", "--csv", "counts.csv")
    assert result.exit_code == 0
    lines = list(csv.DictReader((tmp_path / "counts.csv").read_text().splitlines()))
    assert [line["row"] for line in lines] == ["relu", "tanh", "sigmoid"]
    assert "paper_params_m" not in lines[0], "the paper's figures belong to its own scale"


SMALL = ["--set", "recipe.epochs=4", "--seeds", "1", "--study", "small", "--ablations", ABLATIONS]


def tables(folder):
    """The study's tables and figures; costs and the page with its runs have wall times, which no two runs share."""
    place = folder / "reports" / "small"
    files = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
    timed = {"tables/cost.md", "index.html", "REPORT.md"}
    assert timed < files.keys()
    return {name: path.read_bytes() for name, path in files.items() if name not in timed}


def test_a_study_killed_in_the_middle_ends_with_the_tables_of_an_undisturbed_one(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    command = ["run", "ratio", "--rows", "r2,original", *SMALL, "--jobs", "1", "--report"]
    done = call(*command, cwd=whole)
    assert done.returncode == 0, done.stderr
    assert "training 3 on cpu, 1 at once" in done.stderr
    assert re.search(r"r = 2 +1 ", done.stdout)
    for number in (1, 2, 3):
        assert re.search(
            rf"\n(se-r2|se-r16|plain) seed 0: \d+\.\d\d % error in .+; {number} of 3 runs done", done.stderr
        )
    page = re.fullmatch(r"wrote \d+ files; the page to open: (.+)", done.stdout.splitlines()[-1])
    assert page
    assert (whole / page[1]).name == "index.html"
    assert (whole / page[1]).is_file()

    driver = subprocess.Popen(
        [sys.executable, "-m", "senet_ablate", *command],
        cwd=cut,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while True:  # until one run is finished and the next is on its way
        finished = list(cut.glob("results/small/*/record.json"))
        begun = {path.parent for path in cut.glob("results/small/*/last.ckpt")}
        if finished and begun - {path.parent for path in finished}:
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    before = {path: path.stat().st_mtime_ns for path in finished}

    again = call(*command, cwd=cut)
    assert again.returncode == 0, again.stderr
    assert f"{len(finished)} of 3 runs were finished; training {3 - len(finished)}" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished runs are not touched"
    assert tables(cut) == tables(whole)
    resumed = [json.loads(path.read_text())["provenance"]["resumed_at_epoch"] for path in cut.rglob("record.json")]
    assert any(resumed)

    for name in ("last.ckpt", "progress.json", "lease-1.json", ".curve.csv.a1b2c3d4"):
        (finished[0].parent / name).write_text("of a doer that was killed right after it had written the record")
    third = call(*command, cwd=cut)
    assert "3 of 3 runs were finished; nothing to train" in third.stderr
    assert {path.name for path in finished[0].parent.iterdir()} == {"curve.csv", "predictions.npz", "record.json"}
    gate = call("plan", "gate", *SMALL, cwd=cut)
    assert "4 variants, 4 runs, 2 finished, 2 to do." in gate.stdout, "the three gates, and the network without SE"
    assert "from 3 finished runs of this protocol" in " ".join(gate.stdout.split())
    changed = call("run", "gate", *SMALL, "--set", "recipe.lr=0.1", cwd=cut)
    assert changed.returncode == 2
    assert "recipe.lr: then 0.05, now 0.1" in changed.stderr


def start(*arguments, cwd):
    """Begin the command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "senet_ablate", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def shared(epochs):
    """A study of three runs."""
    return ["run", "ratio", "--rows", "r2,original", *SMALL, "--set", f"recipe.epochs={epochs}", "--jobs", "1"]


def test_two_drivers_divide_a_study_between_them(tmp_path):
    drivers = [start(*shared(20), cwd=tmp_path) for _ in range(2)]
    told = [driver.communicate(timeout=300)[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], told
    trained = [int(re.search(r"trained (\d) runs", text)[1]) for text in told]
    assert sum(trained) == 3, "each run once"
    assert min(trained) >= 1, "and nobody idle"
    assert any("done by another process" in text for text in told)
    folders = [path.parent for path in tmp_path.glob("results/small/*/record.json")]
    assert len(folders) == 3
    assert all(len(list(folder.iterdir())) == 3 for folder in folders)


@pytest.mark.slow
def test_a_driver_takes_over_what_a_killed_one_had_begun(tmp_path):
    first = start(*shared(60), cwd=tmp_path)
    wait_for(lambda: list(tmp_path.glob("results/small/*/last.ckpt")))
    second = start(*shared(60), cwd=tmp_path)
    wait_for(lambda: len(list(tmp_path.glob("results/small/*/lease-*.json"))) > 1)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    told = second.communicate(timeout=300)[1]
    assert second.returncode == 0, told
    records = [json.loads(path.read_text()) for path in tmp_path.glob("results/small/*/record.json")]
    assert len(records) == 3
    assert any(record["provenance"]["resumed_at_epoch"] for record in records)


@pytest.mark.slow
def test_two_processes_train_an_arm_of_the_imagenet_protocol_on_a_tiny_folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 10), ("val", 3)):
        for name in ("goldfish", "pug"):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (80, 96, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    short = [
        "recipe.epochs=2",
        "recipe.batch_size=4",
        "recipe.schedule.milestones=[1]",
        "recipe.lr=0.001",
        "data.validation=0.1",
    ]
    settings = [word for change in short for word in ("--set", change)]
    protocol = ["--protocol", "imagenet-resnet50", "--ablations", ABLATIONS, "--study", "tiny", *settings]
    shared = ["--device", "cpu", "--devices-per-run", "2", "--data", "images"]
    result = call("run", "ratio", "--rows", "r16", *protocol, *shared, "--report", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("results/tiny/*/record.json")
    record = json.loads(path.read_text())
    assert record["provenance"]["devices"] == 2
    assert record["provenance"]["pipeline"] == "streamed"
    # SE-ResNet-50 less the classifier of 1,000 classes, with one of two.
    assert record["complexity"]["params"] == 28_071_976 - 2049 * 1000 + 2049 * 2
    assert len((path.parent / "curve.csv").read_text().splitlines()) == 1 + 2
    assert "r = 16" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_tidily_and_the_report_is_still_written(tmp_path, number):
    command = ["run", "gate", *SMALL, "--set", "recipe.epochs=400", "--report"]
    driver = subprocess.Popen(
        [sys.executable, "-m", "senet_ablate", *command],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background job ignores SIGINT, and so would what it starts: the tests among them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("results/small/*/progress.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if number == signal.SIGINT:
        os.killpg(driver.pid, number)  # as a terminal does
    else:
        driver.send_signal(number)
    output, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "Traceback" not in errors
    assert "the same command continues" in " ".join(errors.split())
    assert not list(tmp_path.glob("results/small/*/lease-*.json")), "a driver elsewhere need not wait for them"
    assert "unfinished: seed 0 at epoch" in (tmp_path / "reports/small/tables/table12_gate.md").read_text()
    assert "Table 12" in output


FIRST_WORD = """
import sys
from senet_ablate.cli import run
def tell(text):
    print(text, "torch" in sys.modules, "pandas" in sys.modules)
    sys.exit()
run.tell = tell
run.run(["ratio", "--study", "s"])
"""


def test_the_first_word_comes_before_anything_slow(tmp_path):
    here = os.environ | {"PYTHONPATH": str(Path(ABLATIONS).parent)}
    done = subprocess.run([sys.executable, "-c", FIRST_WORD], cwd=tmp_path, capture_output=True, text=True, env=here)
    assert done.stdout == "study s, protocol digits, results in results/s; loading False False\n"
