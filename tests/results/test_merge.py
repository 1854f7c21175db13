"""Joining results: what agrees is one, what differs is kept beside, and nothing that is there is touched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers import FACTS, PLAIN, PROTOCOL, R4, SE
from sound import begun, sound_run, write_sound
from studies import put_plan

from senet_ablate.cli.main import main
from senet_ablate.errors import UserError
from senet_ablate.files import write_atomic
from senet_ablate.results.lease import leased
from senet_ablate.results.merge import merge
from senet_ablate.results.plan import read_plan
from senet_ablate.results.records import Predictions, Progress
from senet_ablate.results.store import Study
from senet_ablate.spec.protocol import Protocol


@pytest.fixture
def ours(tmp_path: Path) -> Study:
    return begun(Study(tmp_path / "ours" / "first"))


@pytest.fixture
def theirs(tmp_path: Path) -> Study:
    return begun(Study(tmp_path / "theirs" / "first"))


def content(study: Study) -> dict[str, bytes]:
    return {str(path.relative_to(study.root)): path.read_bytes() for path in study.root.rglob("*") if path.is_file()}


def stamps(study: Study) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in study.root.rglob("*") if path.is_file()}


def call(study: Study, *sources: object) -> Result:
    arguments = [*map(str, sources), "--into", study.name, "--results", str(study.root.parent)]
    return CliRunner().invoke(main, ["merge", *arguments], env={"COLUMNS": "400"})


def test_runs_of_several_machines_become_one_study(ours: Study, theirs: Study, tmp_path: Path) -> None:
    third = begun(Study(tmp_path / "third" / "first"))
    write_sound(ours, SE, 0)
    for study, variant, seed in ((theirs, SE, 1), (theirs, PLAIN, 0), (third, SE, 2)):
        write_sound(study, variant, seed)
    expected = content(ours) | content(theirs) | content(third)
    before = stamps(ours)
    merged = merge([theirs.root, third.root.parent], ours)  # a study's folder, and a results folder
    assert len(merged.added) == 3
    assert (merged.same, merged.conflicts, merged.refused, merged.cautions) == (0, [], [], [])
    assert content(ours) == expected
    assert {path: stamp for path, stamp in stamps(ours).items() if path in before} == before
    assert [(record.spec.variant, record.spec.seed) for record in ours.records()] == [
        (PLAIN, 0),
        (SE, 0),
        (SE, 1),
        (SE, 2),
    ]


def test_a_second_time_changes_nothing(ours: Study, theirs: Study) -> None:
    write_sound(ours, SE, 0, 20)
    write_sound(theirs, SE, 0, 21)
    write_sound(theirs, SE, 1)
    first = merge([theirs.root], ours)
    before = stamps(ours)
    second = merge([theirs.root], ours)
    assert stamps(ours) == before
    assert (len(first.added), len(second.added), second.same) == (1, 0, 1)
    assert second.conflicts == first.conflicts


def test_a_new_study_is_that_of_its_sources(tmp_path: Path, theirs: Study) -> None:
    put_plan(theirs, 3)
    write_sound(theirs, SE, 0)
    new = Study(tmp_path / "new" / "joined")
    assert len(merge([theirs.root], new).added) == 1
    assert new.pin() == theirs.pin()
    assert read_plan(new) == read_plan(theirs)
    assert len(new.records()) == 1


def test_the_plan_that_is_there_stays_and_another_is_told(ours: Study, theirs: Study) -> None:
    plan = put_plan(ours, 3)
    put_plan(theirs, 5)
    merged = merge([theirs.root], ours)
    assert read_plan(ours) == plan
    assert [line for line in merged.cautions if "plan.json" in line]


def test_the_same_result_from_another_machine_is_one(ours: Study, theirs: Study) -> None:
    """How long a run took, and where, is no part of what it came to."""
    write_sound(ours, SE, 0, wall_s=1.0, cpu="one")
    write_sound(theirs, SE, 0, wall_s=9.0, cpu="another")
    before = content(ours)
    merged = merge([theirs.root], ours)
    assert (merged.same, merged.added, merged.conflicts) == (1, [], [])
    assert content(ours) == before


def test_the_same_seed_with_another_result_is_kept_beside_and_told(ours: Study, theirs: Study) -> None:
    here, there = write_sound(ours, SE, 0, 20), write_sound(theirs, SE, 0, 23)
    write_sound(ours, SE, 1, 20)
    write_sound(theirs, SE, 1, 21)
    one, other = (Predictions.from_file(folder.path / "predictions.npz").wrong for folder in (here, there))
    before = content(ours)
    result = call(ours, theirs.root)
    assert result.exit_code == 1
    text = result.stdout
    assert "same seed, different result" in text
    assert f"{here.path.name}: 10.00 % and 11.50 %; {sum(one != other)} test images differ" in text
    assert "2 with a different result (by at most 1.50 points of error)" in text
    after = content(ours)
    assert {name: after[name] for name in before} == before
    kept = [path for path in (ours.root / "conflicts").iterdir() if path.name.startswith(here.path.name + "-")]
    assert len(kept) == 1
    assert {path.name: path.read_bytes() for path in kept[0].iterdir()} == {
        path.name: path.read_bytes() for path in there.path.iterdir()
    }


def test_readers_of_runs_do_not_see_conflicts(ours: Study, theirs: Study) -> None:
    from senet_ablate.results.worklist import find_pace

    write_sound(ours, SE, 0, 20)
    write_sound(theirs, SE, 0, 23)
    before = ours.records(), ours.begun(), [folder.path for folder in ours.folders()]
    pace = find_pace(PROTOCOL, ours.root.parent)
    assert len(merge([theirs.root], ours).conflicts) == 1
    assert (ours.records(), ours.begun(), [folder.path for folder in ours.folders()]) == before
    assert find_pace(PROTOCOL, ours.root.parent) == pace


def test_each_of_several_other_results_is_kept(ours: Study, theirs: Study, tmp_path: Path) -> None:
    third = begun(Study(tmp_path / "third"))
    for study, wrong in ((ours, 20), (theirs, 21), (third, None)):
        curve = [] if wrong is None else {}
        write_sound(study, SE, 0, wrong, **({"curve": curve} if curve else {}))
    (one, other) = merge([theirs.root, third.root], ours).conflicts
    assert one.kept != other.kept
    assert abs(one.here - one.there) == pytest.approx(0.5)
    assert None in (other.here, other.there)


def test_a_run_that_is_not_finished_here_gets_the_result_and_an_unfinished_one_there_is_left_out(
    ours: Study, theirs: Study
) -> None:
    folder = ours.run(write_sound(theirs, SE, 0).path.name)
    write_atomic(folder.checkpoint_file, b"weights")
    write_atomic(folder.progress_file, Progress(epoch=1, epochs=2).model_dump_json())
    write_atomic(theirs.run(PROTOCOL.run_spec(SE, 1).run_id).checkpoint_file, b"weights")
    merged = merge([theirs.root], ours)
    assert (len(merged.added), merged.unfinished) == (1, 1)
    assert sorted(path.name for path in folder.path.iterdir()) == ["curve.csv", "predictions.npz", "record.json"]
    assert len(ours.folders()) == 1


def test_a_run_that_is_being_trained_here_is_left_to_its_doer(ours: Study, theirs: Study) -> None:
    folder = ours.run(write_sound(theirs, SE, 0).path.name)
    with leased(folder.path):
        merged = merge([theirs.root], ours)
        assert (len(merged.busy), merged.added) == (1, [])
        assert not folder.record_file.exists()
    assert len(merge([theirs.root], ours).added) == 1


def test_a_merge_that_was_killed_is_completed_by_the_next(
    ours: Study, theirs: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sound(theirs, SE, 0)
    write_sound(theirs, SE, 1)
    replace, count = os.replace, len(content(theirs)) - 1  # files of the two runs
    for end in range(1, count + 1):
        shutil.rmtree(ours.root)
        begun(ours)
        written: list[str] = []

        def cut_off(one: str, to: str, end: int = end, written: list[str] = written, **folders: int) -> None:
            written.append(to)
            if len(written) == end:
                raise KeyboardInterrupt
            replace(one, to, **folders)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", cut_off)
            with pytest.raises(KeyboardInterrupt):
                merge([theirs.root], ours)
        assert all(folder.record() is None or folder.record() for folder in ours.folders())
        merge([theirs.root], ours)
        assert content(ours) == content(theirs)


@pytest.mark.parametrize(
    ("protocol", "facts", "line"),
    [
        ({"recipe": PROTOCOL.recipe.model_copy(update={"lr": 0.2})}, {}, "recipe.lr: here 0.1, there 0.2"),
        ({"precision": "bf16"}, {}, "precision: here fp32, there bf16"),
        ({}, {"fingerprint": "beef"}, "data.fingerprint: here f00d, there beef"),
        ({}, {"n_test": 199}, "data.n_test: here 200, there 199"),
    ],
)
def test_another_protocol_or_other_images_are_refused_before_anything_is_written(
    ours: Study, tmp_path: Path, theirs: Study, protocol: dict, facts: dict, line: str
) -> None:
    other = Study(tmp_path / "other")
    other.begin(Protocol(**(dict(PROTOCOL) | protocol)), FACTS.model_copy(update=facts))
    write_sound(theirs, SE, 0)
    before = content(ours)
    result = call(ours, theirs.root, other.root)
    assert result.exit_code == 2
    assert f"{other.root} cannot be merged with study first" in result.stderr
    assert line in result.stderr
    assert content(ours) == before


def test_names_seeds_and_stray_files_may_differ(ours: Study, tmp_path: Path) -> None:
    other = Study(tmp_path / "other")
    protocol = PROTOCOL.model_copy(update={"name": "mine", "seeds": 9, "description": "mine"})
    other.begin(protocol, FACTS.model_copy(update={"skipped": 3}))
    write_sound(other, SE, 8)
    assert len(merge([other.root], ours).added) == 1


def test_sources_that_are_none_are_told(ours: Study, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, words in (
        (tmp_path / "empty", "no study.json there nor in"),
        (ours.root, "that is study 'first' itself"),
        (ours.root.parent, "that is study 'first' itself"),
    ):
        with pytest.raises(UserError, match=words):
            merge([source], ours)
    assert call(ours, tmp_path / "nowhere").exit_code == 2
    assert call(ours).exit_code == 2
    for name in ("../elsewhere", ".hidden", "a/b", str(tmp_path)):
        result = CliRunner().invoke(main, ["merge", str(ours.root), "--into", name])
        assert result.exit_code == 2
        assert "plain folder name" in result.stderr


def test_a_study_is_begun_only_when_it_is_said_to_be_new(ours: Study, theirs: Study) -> None:
    write_sound(theirs, SE, 0)
    frist = Study(ours.root.with_name("frist"))
    result = call(frist, theirs.root)
    assert result.exit_code == 2
    assert "--into frist: no study 'frist' in " in result.stderr
    assert "studies there: first; to begin it here, add --new" in result.stderr
    assert not frist.root.exists()
    for _ in range(2):
        assert call(frist, theirs.root, "--new").exit_code == 0
    assert len(frist.records()) == 1


def test_versions_and_hardware_that_differ_are_cautions(ours: Study, theirs: Study) -> None:
    write_sound(ours, SE, 0, libraries={"torch": "2.6"}, cpu="old")
    write_sound(ours, SE, 1, libraries={"torch": "2.6"}, cpu="old")
    write_sound(theirs, SE, 2, libraries={"torch": "2.7"}, cpu="new", precision="bf16", threads=2)
    result = call(ours, theirs.root)
    assert result.exit_code == 0
    for line in (
        "warning: versions.torch: 2.6 in 2 runs, 2.7 in 1 runs",
        "warning: hardware.name: old in 2 runs, new in 1 runs",
        "warning: precision.used: fp32 in 2 runs, bf16 in 1 runs",
        "warning: execution.threads: 1 in 2 runs, 2 in 1 runs",
    ):
        assert line in result.stdout
    assert result.stdout.count("warning") == 4


def test_what_is_damaged_there_or_here_is_left_as_it_is(ours: Study, theirs: Study) -> None:
    damaged = write_sound(theirs, SE, 0)
    damaged.record_file.write_text("{")
    cut = write_sound(theirs, SE, 1)
    (cut.path / "predictions.npz").write_bytes(b"")
    here = write_sound(ours, SE, 2)
    write_sound(theirs, SE, 2, 30)
    here.record_file.write_text("[]")
    write_sound(theirs, R4, 0)
    result = call(ours, theirs.root)
    assert result.exit_code == 1
    refused = [line for line in result.stdout.splitlines() if line.startswith("refused: ")]
    assert len(refused) == 3
    for path, line in zip((damaged.record_file, cut.path / "predictions.npz", here.record_file), refused, strict=True):
        assert str(path) in line
    assert [folder.path.name[:6] for folder in ours.folders()] == ["se-r16", "se-r4-"]
    assert here.record_file.read_text() == "[]"
    assert "1 runs added" in result.stdout


def test_a_result_on_former_images_here_is_no_second_result(ours: Study, theirs: Study) -> None:
    write_sound(ours, SE, 0, 20, fingerprint="former")
    write_sound(theirs, SE, 0, 21)
    merged = merge([theirs.root], ours)
    assert merged.conflicts == []
    assert "other images" in merged.refused[0]


# --- from people one does not know ---


def test_no_name_in_a_record_leads_out_of_the_study(ours: Study, theirs: Study, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    record, files = sound_run(SE, 0)
    honest = json.loads(record.model_dump_json())
    outside = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name in ("../../escape", "/tmp/escape", str(secret), "..", "record.json", "CURVE.CSV", "curve.csv/../x", ""):
        for change in ({"sha256": honest["sha256"] | {name: "0" * 64}}, {"run_id": name}):
            folder = theirs.run(record.run_id)
            for file, content_of in files.items():
                write_atomic(folder.path / file, content_of)
            write_atomic(folder.record_file, json.dumps(honest | change))
            merged = merge([theirs.root], ours)
            assert (merged.added, len(merged.refused)) == ([], 1), (name, merged)
    after = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: text for name, text in after.items() if not name.startswith(str(theirs.root / "se-"))} == outside


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_a_link_in_a_source_brings_nothing_that_its_record_does_not_vouch_for(
    ours: Study, theirs: Study, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    folder = write_sound(theirs, SE, 0)
    (folder.path / "curve.csv").unlink()
    (folder.path / "curve.csv").symlink_to(secret)
    (folder.path / "extra").symlink_to(secret)
    merged = merge([theirs.root], ours)
    assert (merged.added, len(merged.refused)) == ([], 1)
    assert not any(b"mine" in text for text in content(ours).values())


def test_no_text_in_a_record_commands_the_terminal(ours: Study, theirs: Study) -> None:
    write_sound(ours, SE, 0)
    write_sound(theirs, SE, 1, cpu="\x1b]0;title\x07\x1b[2J\x9b1m\rnew")
    text = call(ours, theirs.root).stdout
    assert "title" in text
    assert not any(code in text for code in "\x1b\x07\x9b\r")


def test_only_files_of_a_run_are_taken(ours: Study, theirs: Study) -> None:
    folder = write_sound(theirs, SE, 0)
    for name in ("last.ckpt", "run.py", "lease-1.json", ".hidden"):
        (folder.path / name).write_text("x")
    (theirs.root / "conflicts" / "se-r16-s0-0123456789-aa").mkdir(parents=True)
    merge([theirs.root], ours)
    place = ours.run(folder.path.name).path
    assert sorted(path.name for path in place.iterdir()) == ["curve.csv", "predictions.npz", "record.json"]
