"""The fault harness in a short form, and whether its checks could fail at all."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from helpers import PLAIN, SE
from sound import begun, write_sound

from senet_ablate.errors import UserError
from senet_ablate.files import write_atomic
from senet_ablate.results.plan import read_plan
from senet_ablate.results.records import StudyPlan
from senet_ablate.results.store import Study
from senet_ablate.results.verify import verify

STRESS = Path(__file__).parent

import aftermath  # noqa: E402 - plain scripts beside each other
import faults  # noqa: E402
import lives  # noqa: E402

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


@pytest.mark.slow
def test_a_study_under_faults_of_many_kinds_comes_out_as_an_undisturbed_one(tmp_path: Path) -> None:
    command = [sys.executable, STRESS / "chaos.py", "--output", tmp_path / "chaos"]
    short = ["--faults", "16", "--minutes", "1", "--every", "0.4", "--seeds", "2", "--epochs", "4"]
    done = subprocess.run([*command, *short], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-5000:] + done.stdout
    result = json.loads((tmp_path / "chaos/chaos.json").read_text())
    assert sum(result["faults"].values()) == result["injected"] >= 8
    assert not any(result["problems"].values())
    assert result["completions"] >= result["runs"] * result["studies"]
    assert "| nothing was trained to the end twice | holds |" in (tmp_path / "chaos/chaos.md").read_text()


def test_every_process_of_a_driver_has_short_leases_and_notes_what_is_finished(tmp_path: Path) -> None:
    stable = lives.Stable("mark", [], tmp_path / "drivers")
    (tmp_path / "run").mkdir()
    code = (
        "import pathlib, sys; from senet_ablate.results import lease; print(lease.BEAT_S, lease.STALE_S);"
        "from senet_ablate.files import write_atomic; write_atomic(pathlib.Path(sys.argv[1]) / 'record.json', '{}')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=stable.environment("mark.0"), check=True)
    assert done.stderr == ""
    assert done.stdout.split() == [str(lives.BEAT_S), str(lives.STALE_S)]
    assert stable.noted("finished") == ["run"]


@pytest.fixture
def two(tmp_path: Path) -> Study:
    """Two finished runs."""
    study = begun(Study(tmp_path / "results" / aftermath.STUDY))
    for variant in (SE, PLAIN):
        write_sound(study, variant, 0)
    return study


def test_any_byte_of_a_table_a_curve_or_an_outcome_that_differs_is_named(two: Study, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    for name in ("tables/table10_ratio.md", "tables/cost.md", "index.html"):
        path = reports / aftermath.STUDY / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a")
    results = two.root.parent
    before = aftermath.outcome(results, reports)
    (run, other) = (folder.path for folder in two.folders())
    assert aftermath.differences(before, aftermath.outcome(results, reports)) == []
    (reports / aftermath.STUDY / "tables/cost.md").write_text("b")
    assert aftermath.differences(before, aftermath.outcome(results, reports)) == [], "time differs from time to time"
    (reports / aftermath.STUDY / "tables/table10_ratio.md").write_text("b")
    (run / "curve.csv").write_bytes((run / "curve.csv").read_bytes() + b"\n")
    record = json.loads((run / "record.json").read_text())
    record["provenance"]["wall_s"] += 1
    (run / "record.json").write_text(json.dumps(record))
    record = json.loads((other / "record.json").read_text())
    record["metrics"]["top1_err"] += 0.5
    (other / "record.json").write_text(json.dumps(record))
    (other / "predictions.npz").unlink()
    assert aftermath.differences(before, aftermath.outcome(results, reports)) == sorted(
        [
            f"{run.name}/curve.csv: differs",
            f"{other.name}/record.json: differs",
            f"{other.name}/predictions.npz: missing",
            "tables/table10_ratio.md: differs",
        ]
    )


def test_a_run_may_finish_again_only_as_often_as_its_result_was_removed() -> None:
    assert aftermath.repeated(["a", "b", "a", "a"], Counter(a=2)) == []
    (told,) = aftermath.repeated(["a", "b", "a", "a"], Counter(a=1))
    assert told.startswith("a: finished 3 times")


def test_what_is_left_beside_a_result_is_named(two: Study) -> None:
    assert aftermath.leftovers(two.root) == []
    folder = two.folders()[0].path
    (folder / "last.ckpt").touch()
    assert aftermath.leftovers(two.root) == [f"{folder.name}/last.ckpt: left over"]


@pytest.mark.parametrize("way", faults.WAYS)
@pytest.mark.parametrize("name", faults.OF_A_RECORD)
def test_a_spoilt_file_of_a_finished_run_is_told_with_what_to_do(two: Study, name: str, way: str) -> None:
    """Else the harness, as any user, would not know what to remove."""
    folder = two.folders()[0]
    whole = (folder.path / name).read_bytes()
    for seed in range(20):
        spoilt = faults.WAYS[way](whole, random.Random(seed))
        assert spoilt != whole
        (folder.path / name).write_bytes(spoilt)
        try:
            folder.record()
            told = "\n".join(verify(two).problems)
        except UserError as error:
            told = f"error: {error}"
        if told or name != "record.json":  # which has no checksum: a bit of its provenance may turn unseen
            assert aftermath.TOLD.findall(told) == [str(folder.path)], told


def arena_of(study: Study, tmp_path: Path) -> faults.Arena:
    (tmp_path / "outside").mkdir()
    stable = lives.Stable("mark", [], tmp_path / "drivers")
    return faults.Arena(random.Random(0), study.root, stable, None, tmp_path / "outside")


PLAN_FAULTS = [kind for kind in faults.FAULTS if "plan" in kind]


@pytest.mark.parametrize("kind", PLAN_FAULTS)
@pytest.mark.parametrize("seed", range(8))
def test_what_is_done_to_a_plan_is_told_or_needs_nothing_done_and_loses_nothing(
    two: Study, tmp_path: Path, kind: str, seed: int
) -> None:
    arena, plan = arena_of(two, tmp_path), StudyPlan(claims={}, seeds=({"se-r16": 1, "plain": 1},))
    assert faults.FAULTS[kind](arena) is None, "it would be lost"
    two.hold(plan)
    write_atomic(two.root / "plan.json", plan.model_dump_json(indent=1) + "\n")
    arena.rng.seed(seed)
    assert faults.FAULTS[kind](arena)
    told = "\n".join(verify(two).problems)
    assert not told or aftermath.PLAN_TOLD.search(told) or aftermath.STRANGE.findall(told) == [str(arena.strange[-1])]
    assert not (told and arena.plan_elsewhere("study.json")), "a pipe in its place is neither whole nor waited for"
    path = two.root / "plan.json"
    if told:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert read_plan(two) == plan
    if not path.exists():
        assert faults.FAULTS["study.json harmed"](arena) is None, "the only plan left is there"


def test_the_harness_harms_no_file_but_the_suites_and_follows_no_link(two: Study, tmp_path: Path) -> None:
    arena, (run, other) = arena_of(two, tmp_path), [folder.path for folder in two.folders()]
    (arena.outside / "record.json").write_text("theirs")
    (arena.outside / "lease-1.json").write_text("theirs")
    for name in ("last.ckpt", "lease-1.json"):
        os.mkfifo(run / name)
    with (run / "progress.json").open("wb") as file:
        file.truncate(10 * 2**30)
    (run / "record.json").unlink()
    (run / "previous.ckpt").symlink_to(arena.outside / "record.json")
    (run / "lease-2.json").symlink_to("/dev/zero")
    assert faults.LINKED in faults.FAULTS
    (two.root / "se-r32-s0-0123456789").symlink_to(arena.outside, target_is_directory=True)
    assert (arena.folders(finished=False), arena.folders(finished=True)) == ([run], [other])
    for kind in ("last.ckpt", "previous.ckpt", "lease", "progress.json"):
        assert faults.FAULTS[f"{kind} harmed"](arena) is None
    assert faults._holders(arena) == set()
    assert {path.read_text() for path in arena.outside.iterdir()} == {"theirs"}


def test_causes_are_counted_without_names_and_numbers() -> None:
    one = "…: /a/se-r16-s3-0123456789/last.ckpt: no space left; 4096 bytes; 1 of 4 runs done, about 3 s left"
    assert aftermath.generalised(one) == "…: …/last.ckpt: no space left; … bytes"


def test_all_kinds_come_before_any_comes_again_and_one_that_cannot_be_done_now_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    able = {"a", "b"}
    table = {kind: lambda arena, kind=kind: kind if kind in able else None for kind in "abc"}
    monkeypatch.setattr(faults, "FAULTS", table)
    monkeypatch.setattr(faults, "PATIENCE_S", 0.0)
    schedule = faults.Schedule(random.Random(0), list("abc"))

    class Busy:
        def worker(self) -> int:
            return 1

    def kinds(count: int) -> list[str]:
        return sorted(done[0] for _ in range(count) if (done := schedule.inject(Busy())))

    assert kinds(4) == ["a", "a", "b", "b"]
    able.add("c")
    assert kinds(2) == ["c", "c"]
    able.clear()
    assert kinds(1) == []
