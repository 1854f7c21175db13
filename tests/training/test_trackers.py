"""Trackers: told each epoch once, also over an interruption; an absent one is refused, one that fails costs nothing."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers import PLAIN, PROTOCOL
from pytorch_lightning import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from senet_ablate.cli.main import main
from senet_ablate.errors import UserError
from senet_ablate.results.records import RunRecord, read_curve
from senet_ablate.results.store import RunFolder
from senet_ablate.training import trackers
from senet_ablate.training.request import RunRequest, TrackerKind
from senet_ablate.training.trackers import MAKERS, check_trackers
from senet_ablate.training.train import train_run

RECIPE = PROTOCOL.recipe.model_copy(update={"batch_size": 128})
SPEC = PROTOCOL.model_copy(update={"recipe": RECIPE}).run_spec(PLAIN, 0)
FINAL = ("test_top1_err", "test_cross_entropy", "params", "multiply_adds")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a study."""
    return tmp_path / "results" / "some"


def train(root: Path, *kinds: TrackerKind) -> RunRecord:
    return train_run(RunRequest(spec=SPEC, folder=RunFolder(root / SPEC.run_id), trackers=kinds))


def expected(root: Path, record: RunRecord) -> dict[str, list[tuple[int, float]]]:
    """What a tracker should have been told: name to steps and values, of which a tracker may keep 32 bits."""
    curve = read_curve(root / record.run_id / "curve.csv")
    told = {
        name: [(point.epoch, getattr(point, name)) for point in curve]
        for name in ("lr", "train_loss", "val_loss", "val_top1_err")
    }
    assert record.metrics is not None
    ends = (record.metrics.top1_err, record.metrics.cross_entropy, record.complexity.params, record.complexity.macs)
    return told | {name: [(len(curve), value)] for name, value in zip(FINAL, ends, strict=True)}


def same(found: dict[str, list[tuple[int, float]]], wanted: dict[str, list[tuple[int, float]]]) -> None:
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6), name


def in_tensorboard(root: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(root / "tracking" / "tensorboard" / SPEC.run_id))
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_the_curve_and_what_the_run_came_to(root: Path) -> None:
    record = train(root, "tensorboard")
    same(in_tensorboard(root), expected(root, record))


def test_a_run_taken_up_again_has_each_epoch_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Trainer.save_checkpoint
    saved = []

    def save_once(*arguments: Any) -> None:
        if saved:
            raise InterruptedError  # the second epoch was told, and is not kept
        saved.append(save(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", save_once)
        with pytest.raises(InterruptedError):
            train(root, "tensorboard")
    assert [step for step, _ in in_tensorboard(root)["lr"]] == [1, 2]
    record = train(root, "tensorboard")
    same(in_tensorboard(root), expected(root, record))


def test_a_tracker_that_fails_is_told_nothing_more_and_the_run_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def unreachable(*_: object) -> None:
        asked.append(1)
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(trackers, "MAKERS", {**MAKERS, "mlflow": unreachable})
    record = train(root, "mlflow", "tensorboard")
    assert record.status == "ok"
    assert asked == [1]
    assert capsys.readouterr().err == f"{SPEC.run_id}: no longer told to mlflow: ConnectionError: nobody answers\n"
    same(in_tensorboard(root), expected(root, record))


def test_a_tracker_that_is_not_installed_is_refused_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(["tensorboard"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"--track wandb: not installed; in the clone of senet-ablate: pip install '.\[wandb\]'"
    ):
        check_trackers(["wandb"])


def test_nothing_is_written_for_trackers_unless_asked(root: Path) -> None:
    train(root)
    assert {path.name for path in root.iterdir()} == {SPEC.run_id}


def test_mlflow_has_the_curve_and_what_the_run_came_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    record = train(root, "mlflow")
    client = importlib.import_module("mlflow").MlflowClient(f"sqlite:///{root / 'tracking' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("senet-ablate/some")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["recipe/epochs"] == str(SPEC.recipe.epochs)
    assert run.info.status == "FINISHED"
    wanted = expected(root, record)
    same(
        {
            name: [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]
            for name in wanted
        },
        wanted,
    )


def test_wandb_has_a_line_of_its_own_for_each_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(root, "wandb")
    wandb = importlib.import_module("wandb")
    assert wandb.run is None  # closed: the next run in this process would be taken for the same
    (folder,) = (root / "tracking" / "wandb").glob("offline-run-*")
    assert folder.name.endswith(f"-some-{SPEC.run_id}")


def test_run_passes_the_trackers_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["--set", "recipe.epochs=1", "--set", "recipe.schedule.warmup_epochs=0", "--study", "short"]
    call = ["run", "ratio", "--rows", "original", "--seeds", "1", "--jobs", "1", *short, "--track", "tensorboard"]
    done = CliRunner().invoke(main, call, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    runs = [json.loads(path.read_text())["run_id"] for path in Path("results/short").glob("*/record.json")]
    assert sorted(path.name for path in Path("results/short/tracking/tensorboard").iterdir()) == sorted(runs)
