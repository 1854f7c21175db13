"""Times: what is measured, in which order, how it is kept and shown, and that nobody measures beside a study."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from helpers import PLAIN, PROTOCOL, R16, table
from torch import nn

from senet_ablate.cli.main import main
from senet_ablate.errors import UserError
from senet_ablate.execution import machine
from senet_ablate.models.latency import ROUNDS, in_turn, measure_latency, stopwatches
from senet_ablate.report.tables import printed
from senet_ablate.results.records import Latency, Timing
from senet_ablate.results.store import Study, read_latency, write_latency


def latency(slug: str, milliseconds: float, **changes: object) -> Latency:
    timing = Timing.of([milliseconds, milliseconds + 1, milliseconds + 5])
    usual = {
        "device": "cpu", "cpu": "A processor", "threads": 1, "precision": "fp32", "torch": "2", "batch": 4, "rounds": 3,
        "networks": {slug: {"one_image": timing, "batch": timing, "training_step": timing}},
    }  # fmt: skip
    return Latency.model_validate(usual | changes)


def test_all_networks_are_measured_in_turn() -> None:
    asked = []

    def watch(name: str) -> dict[str, object]:
        return {"one_image": lambda: asked.append(name) or float(len(asked))}

    rounds: list[int] = []
    found = in_turn({"a": watch("a"), "b": watch("b")}, 2, rounds.append)  # type: ignore[dict-item]
    assert asked == ["a", "b", "a", "b"]
    assert found == {"a": {"one_image": [1.0, 3.0]}, "b": {"one_image": [2.0, 4.0]}}
    assert rounds == [1, 2]


def test_inference_changes_nothing_and_a_training_step_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("senet_ablate.models.latency.LEAST_S", 1e-4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    before = model[1].weight.detach().clone()
    watches = stopwatches(
        model, {"look": torch.ones(1, 1, 2, 2)}, {"learn": torch.ones(3, 1, 2, 2)}, bf16=False, threads=1
    )
    assert watches["look"]() > 0
    assert torch.equal(model[1].weight, before)
    assert watches["learn"]() > 0
    assert not torch.equal(model[1].weight, before)


def test_a_measurement_repeats_the_work_for_the_time_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Stub:
        """Work that takes 30 ms, whatever its timer costs."""

        mean = 0.03

        def __init__(self, *_: object, **__: object) -> None: ...

        def timeit(self, number: int) -> Stub:
            asked.append(number)
            return self

    monkeypatch.setattr("senet_ablate.models.latency.Timer", Stub)
    watches = stopwatches(nn.Linear(1, 1), {"look": torch.ones(1, 1)}, {}, bf16=False, threads=1)
    assert watches["look"]() == pytest.approx(30)
    assert asked == [1, 7]  # 0.2 s of 0.03 s each


def test_a_slower_network_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("senet_ablate.models.latency.LEAST_S", 1e-3)
    found = measure_latency(PROTOCOL, [R16, PLAIN], (1, 10), device="cpu", precision="fp32", threads=1)
    assert list(found.networks) == [R16.slug, PLAIN.slug]
    assert (found.batch, found.rounds) == (PROTOCOL.recipe.batch_size, ROUNDS)
    for times in found.networks.values():
        # A step runs forward, backward and update on the batch of which inference runs forward alone.
        assert times["training_step"].median > times["batch"].median
        assert all(each.low <= each.median <= each.high for each in times.values())


def test_networks_measured_before_in_the_same_way_stay_and_others_go(study: Study) -> None:
    assert read_latency(study) is None
    write_latency(study, latency("se-r16", 2.0))
    both = write_latency(study, latency("plain", 1.0))
    assert set(both.networks) == {"se-r16", "plain"}
    assert read_latency(study) == both
    write_latency(study, latency("plain", 1.0, threads=2))
    assert set((read_latency(study) or both).networks) == {"plain"}


def test_a_damaged_file_is_named(study: Study) -> None:
    (study.root / "latency.json").write_text("{")
    with pytest.raises(UserError, match=r"latency\.json: damaged: .*; measure again"):
        read_latency(study)


def test_tables_show_times_once_they_are_measured(full: Study) -> None:
    assert "ms, 1 image" not in printed(table(full)).columns
    write_latency(full, latency(R16.slug, 2.0))
    shown = printed(table(full)).set_index("variant")
    assert shown["ms, 1 image"].tolist().count("3 (2–7)") == 1
    assert any(remark.startswith("Times: A processor, 1 thread, fp32") for remark in table(full).remarks)


HOLD = textwrap.dedent("""
    import sys
    from senet_ablate.execution import machine
    with machine.shared(print):
        print("held", flush=True)
        sys.stdin.readline()
""")


def test_nobody_measures_while_a_study_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as study:
        assert study.stdout is not None
        assert study.stdout.readline() == "held\n"
        with machine.shared(print):
            pass  # studies share the machine
        with pytest.raises(UserError, match="a study trains on this machine"), machine.alone():
            pass
        study.communicate("\n")
    with machine.alone():
        pass


def test_the_command_measures_and_keeps_it_with_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("senet_ablate.models.latency.LEAST_S", 1e-4)
    monkeypatch.setattr("senet_ablate.models.latency.ROUNDS", 1)
    result = CliRunner().invoke(main, ["latency", "squeeze", "--results", str(tmp_path), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    found = read_latency(Study(tmp_path / "digits"))
    assert found is not None
    assert set(found.networks) == {"se-r16", "se-r16-max", "plain"}
    assert "1 image, ms" in result.output
