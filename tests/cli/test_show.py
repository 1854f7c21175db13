"""One run, shown; and what the shell completes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from helpers import FACTS, PLAIN, PROTOCOL, R4, make_record, write_record

from senet_ablate.cli.main import main
from senet_ablate.results.records import Failure, Progress
from senet_ablate.results.store import Study


@pytest.fixture
def show(full: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`show`, in the folder that has the results."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(main, ["show", *words], env={"COLUMNS": "200"})


def shown(result: Result) -> dict[str, str]:
    """The lines by their names."""
    assert result.exit_code == 0, result.stderr
    pairs = (line.strip().partition(" ") for line in result.stdout.splitlines() if line.strip())
    return {name: text.strip() for name, _, text in pairs}


def test_a_finished_run_is_shown_with_what_it_came_to_and_how(show: Callable[..., Result]) -> None:
    lines = shown(show("se-r4-s1"))
    assert lines["run"] == PROTOCOL.run_spec(R4, 1).run_id
    assert lines["error"] == "12.00 % of 200 test images"
    assert lines["seed"] == "1"
    assert lines["recipe"] == "2 epochs, batch 4, learning rate 0.1"
    assert "'reduction': 4" in lines["network"]
    assert lines["files"] == "curve.csv, predictions.npz, record.json"
    assert "no SE" in shown(show("plain-s0"))["network"]


def test_a_run_that_is_not_finished_says_how_far_it_is_or_why(show: Callable[..., Result], full: Study) -> None:
    folder = full.run(PROTOCOL.run_spec(PLAIN, 7).run_id)
    folder.path.mkdir()
    assert shown(show("plain-s7"))["unfinished"] == "not one epoch yet"
    folder.progress_file.write_text(Progress(epoch=1, epochs=2).model_dump_json())
    assert shown(show("plain-s7"))["unfinished"] == "at epoch 1 of 2"
    folder.fail(Failure(cause="out of luck", traceback="Traceback: the dice"))
    result = show("plain-s7")
    assert shown(result)["failed"] == "out of luck"
    assert "Traceback: the dice" in result.stdout


def test_a_name_of_no_run_or_of_several_is_a_mistake_that_names_those_meant(
    show: Callable[..., Result], full: Study
) -> None:
    other = Study(full.root.with_name("other"))
    other.begin(PROTOCOL, FACTS)
    write_record(other, make_record(PLAIN, 0, 10.0))
    for words, told in (
        (["plan-s0"], "did you mean 'plain-s0'"),
        (["plain-s0"], "could be first/plain-s0-"),
        (["se-"], "could be first/se-r16-s0-"),
        (["plain-s0", "--study", "../first"], "plain folder name"),
        (["plain-s0", "--study", "frist"], "no run in results/frist"),
        (["plain-s0", "--results", "nowhere"], "no run in nowhere"),
    ):
        result = show(*words)
        assert result.exit_code == 2
        assert told in " ".join(result.stderr.split()), result.stderr
    assert shown(show("plain-s0", "--study", "other"))["error"] == "10.00 % of 200 test images"


def completed(*words: str, typed: str = "") -> list[str]:
    return [item.value for item in ShellComplete(main, {}, "senet-ablate", "_X").get_completions(list(words), typed)]


def test_the_shell_completes_what_there_is(show: Callable[..., Result], full: Study) -> None:
    assert completed("run", typed="ra") == ["ratio"]
    assert set(completed("report")) >= {"ratio", "gate", "controls"}
    assert completed("plan", "--protocol", typed="cifar100") == ["cifar100"]
    assert completed("run", "gate", "--rows") == ["relu", "tanh", "sigmoid"]
    assert completed("run", "gate", "--rows", typed="relu,t") == ["relu,tanh"]
    assert "r32" in completed("run", "ratio", "gate", "--rows", typed="r3")
    for words in (("status", "--study"), ("verify",), ("merge", "--into")):
        assert completed(*words, typed="f") == ["first"], words
    assert completed("show", typed="se-r4-s") == [PROTOCOL.run_spec(R4, seed).run_id for seed in range(3)]
    assert set(completed("excitation", typed="gate:")) >= {"gate:relu", "gate:tanh", "gate:sigmoid"}
    assert completed("prune", typed="se-r3") == ["se-r32"]


def test_a_mistake_in_a_declaration_completes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ablations" / "protocols").mkdir(parents=True)
    (tmp_path / "ablations" / "table10_ratio.toml").write_text("what = [")
    monkeypatch.chdir(tmp_path)
    assert completed("run", typed="r") == []
    assert completed("show", typed="s") == []
