"""Files as a broken disk or a stranger may leave them: readers answer with a result, None or a UserError."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from garbled import (
    CONTENTS,
    FOLDER,
    HONEST,
    RECORD,
    a_study,
    changed_bytes,
    changed_tree,
    paths,
    refusal,
)
from helpers import ABLATION, PROTOCOL, SE
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sound import write_sound

from senet_ablate.analysis.study import assess
from senet_ablate.errors import UserError
from senet_ablate.files import write_atomic
from senet_ablate.results.lease import Watch, leased
from senet_ablate.results.merge import merge
from senet_ablate.results.plan import read_plan
from senet_ablate.results.records import Predictions, RunRecord, digests, read_curve
from senet_ablate.results.store import Study
from senet_ablate.results.verify import examine, verify
from senet_ablate.results.worklist import find_pace, row_states
from senet_ablate.spec.protocol import RunSpec

PATHS = list(paths(HONEST))


@st.composite
def changed_records(draw: st.DrawFn) -> dict[str, Any]:
    """A changed record; sometimes with an identity that fits."""
    tree = draw(changed_tree(HONEST))
    if draw(st.booleans()):
        with suppress(ValidationError, KeyError, TypeError):
            tree["run_id"] = RunSpec.model_validate_json(json.dumps(tree["spec"])).run_id
    return tree


def read_everything(study: Study) -> None:
    """Whatever reads the folders of runs; a mistake is told as one."""
    for folder in study.folders():
        problems = examine(folder, study.pin())
        assert all(isinstance(problem, str) and problem for problem in problems)
        try:
            record = folder.record()
        except UserError:
            assert len(problems) == 1
        else:
            assert record is None or record.run_id == folder.path.name
        folder.failure(), folder.progress()
    verify(study)
    find_pace(PROTOCOL, study.root.parent)
    for read in (
        lambda: row_states([RECORD.spec], study),
        lambda: assess([ABLATION], study),
        lambda: study.record(RECORD.spec),
    ):
        assert refusal(read) != ""
    with a_study() as other:
        try:
            added = merge([study.root], other).added
        except UserError:  # of a plan that is damaged: nothing is taken
            added = []
        assert sorted(path.name for path in other.root.iterdir()) == sorted(["study.json", *added])


def check_record(tree: dict[str, Any]) -> None:
    text = json.dumps(tree)
    with a_study() as study:
        name = tree.get("run_id")
        plain = isinstance(name, str) and name.isascii() and name.isprintable() and 0 < len(name) < 200
        folder = study.run(name if plain and "/" not in name and name.strip(".") else RECORD.run_id)
        for file, content in CONTENTS.items():
            write_atomic(folder.path / file, content)
        write_atomic(folder.record_file, text)
        read_everything(study)


@settings(max_examples=100)
@given(changed_records())
def test_no_record_makes_a_reader_fail(tree: dict[str, Any]) -> None:
    check_record(tree)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(changed_records())
def test_none_of_ten_thousand_records_makes_a_reader_fail(tree: dict[str, Any]) -> None:
    check_record(tree)


@st.composite
def changed_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """One file of a run's folder or its study, and what became of it."""
    name = draw(st.sampled_from(sorted(FOLDER)))
    return name, draw(changed_bytes(FOLDER[name]) | st.binary(max_size=200))


def check_file(name: str, content: bytes, *, vouched: bool) -> None:
    with a_study() as study:
        folder = write_sound(study, SE, 0)
        path = (folder.path / name).resolve()
        path.write_bytes(content)
        for read in (Predictions.from_file, read_curve):
            assert str(path) in refusal(lambda read=read: read(path), str(path))
        if vouched and name in CONTENTS:  # somebody who can compute a checksum
            told = HONEST | {"sha256": digests({**CONTENTS, name: content})}
            write_atomic(folder.record_file, json.dumps(told))
        for read in (study.pin, lambda: read_plan(study)):
            assert str(study.root) in refusal(read, str(study.root))
        Watch().look(folder.path)
        if "study" not in name:
            read_everything(study)
        else:
            verify(study)


@settings(max_examples=80)
@given(changed_files(), st.booleans())
def test_no_file_makes_a_reader_fail(changed: tuple[str, bytes], vouched: bool) -> None:
    check_file(*changed, vouched=vouched)


@pytest.mark.slow
@settings(max_examples=5_000)
@given(changed_files(), st.booleans())
def test_none_of_five_thousand_files_makes_a_reader_fail(changed: tuple[str, bytes], vouched: bool) -> None:
    check_file(*changed, vouched=vouched)


@pytest.mark.parametrize("name", ["record.json", "curve.csv", "progress.json", "failure.json", "lease-1.json"])
def test_a_folder_in_the_place_of_a_file_is_no_trap(name: str) -> None:
    with a_study() as study:
        folder = write_sound(study, SE, 0)
        path = folder.path / name
        path.unlink(missing_ok=True)
        path.mkdir()
        read_everything(study)
        if name == "lease-1.json":
            with pytest.raises(OSError, match=r"lease-1\.json"), leased(folder.path):
                pass


def test_a_record_deeper_than_the_stack_is_damaged() -> None:
    with a_study() as study:
        folder = write_sound(study, SE, 0)
        for text in ("[" * 200_000, '{"a":' * 200_000, "1" * 100_000):
            folder.record_file.write_text(text)
            with pytest.raises(UserError, match="damaged: "):
                folder.record()


def test_predictions_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    np.savez_compressed(path, n=np.array(10**9), wrong=np.zeros(10, np.uint8), ce=np.zeros(10**7, np.float16))
    with pytest.raises(UserError, match="compressed"):
        Predictions.from_file(path)
    np.savez(path, n=np.array(10**12), wrong=np.zeros(1, np.uint8), ce=np.zeros(1, np.float16))
    with pytest.raises(UserError, match="losses of 1000000000000 images expected"):
        Predictions.from_file(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("n.npy", (lambda b: (np.save(b, np.array(10**15)), b.getvalue())[1])(io.BytesIO()))
        archive.writestr("ce.npy", header.getvalue())
    with pytest.raises(UserError, match="damaged predictions"):
        Predictions.from_file(path)


def test_a_record_from_the_honest_tree_is_read_back() -> None:
    """Else the tests above would try nothing."""
    assert RunRecord.model_validate_json(json.dumps(HONEST)) == RECORD
    assert len(PATHS) > 60
