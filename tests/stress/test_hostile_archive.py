"""A stranger's archive, unpacked as results: whatever is in it, no command touches or shows what lies outside of it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import CURVE
from sound import sound_run

from senet_ablate.cli.main import main
from senet_ablate.data.datasets import load_data
from senet_ablate.results.records import StudyPin, digests
from senet_ablate.results.store import RunFolder, Study
from senet_ablate.spec.loading import declarations_dir, load_ablations, load_protocol
from senet_ablate.spec.protocol import DataFacts, Protocol

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and links")

DECLARED = declarations_dir().resolve()
SHORT = ["recipe.epochs=1", "recipe.schedule.warmup_epochs=0"]
SECRET = "nobody's business"
OURS = (
    "record.json", "curve.csv", "predictions.npz", "weights.pt", "last.ckpt", "previous.ckpt", "progress.json",
    "progress.csv", "failure.json", "lease-1.json", ".record.json.abcd1234", ".hidden",
)  # fmt: skip
BAIT = f'=cmd|"/c calc"!A1<script>alert(1)</script>\x1b]0;x\x07{"x" * 5000}'


class Trap:
    """Loaded without protection, it writes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, tuple[Path, str]]:
        return Path.write_text, (self.place / "sprung", "executed")


class Theirs:
    """A study under the digits' protocol, with a sound run of r = 16 and one of no SE that is under way."""

    def __init__(self, root: Path, outside: Path) -> None:
        self.study, self.outside = Study(root), outside
        self.protocol: Protocol = load_protocol(DECLARED, "digits", SHORT)
        self.facts: DataFacts = load_data(self.protocol.data, None).facts
        (ablation,) = load_ablations(DECLARED, ["ratio"])
        variants = {row.id: row.variant for row in ablation.rows}
        self.study.begin(self.protocol, self.facts)
        images = {"fingerprint": self.facts.fingerprint, "n_test": self.facts.n_test}
        record, files = sound_run(variants["r16"], 0, protocol=self.protocol, curve=CURVE[:1], **images)
        self.finished = self.study.run(record.run_id)
        self.finished.finish(record, files)
        self.open: RunFolder = self.study.run(self.protocol.run_spec(variants["original"], 0).run_id)
        self.open.path.mkdir()

    def link(self, path: Path) -> None:
        """Put a link to what has the same name outside."""
        path.unlink(missing_ok=True)
        path.symlink_to(self.outside / path.name)

    def says(self, **changes: str) -> None:
        """Give the record's provenance other texts."""
        told = json.loads(self.finished.record_file.read_text(encoding="utf-8"))
        told["provenance"] |= changes
        self.finished.record_file.write_text(json.dumps(told), encoding="utf-8")


def links_to_folders(theirs: Theirs) -> None:
    theirs.open.path.rmdir()
    for folder in (theirs.open.path, theirs.study.root / "conflicts", theirs.study.root / ".slurm"):
        folder.symlink_to(theirs.outside, target_is_directory=True)
    theirs.finished.path.rename(theirs.outside / "moved")
    theirs.finished.path.symlink_to(theirs.outside / "moved", target_is_directory=True)


def links_to_files(theirs: Theirs) -> None:
    for name in OURS:
        theirs.link(theirs.open.path / name)
    for name in ("curve.csv", "weights.pt", "failure.json"):
        theirs.link(theirs.finished.path / name)
    for name in ("notes.md", "plan.json", "latency.json", "skipped.txt"):
        theirs.link(theirs.study.root / name)


def only_notes_are_a_link(theirs: Theirs) -> None:
    theirs.link(theirs.study.root / "notes.md")


def pipes(theirs: Theirs) -> None:
    for name in ("last.ckpt", "lease-1.json", "progress.json", "failure.json"):
        os.mkfifo(theirs.open.path / name)
    (theirs.finished.path / "predictions.npz").unlink()
    os.mkfifo(theirs.finished.path / "predictions.npz")
    os.mkfifo(theirs.finished.path / "weights.pt")
    os.mkfifo(theirs.study.root / "notes.md")


def a_pipe_for_a_pin(theirs: Theirs) -> None:
    (theirs.study.root / "study.json").unlink()
    os.mkfifo(theirs.study.root / "study.json")


def texts(theirs: Theirs) -> None:
    """Scripts, formulas, commands for terminals, long names."""
    theirs.says(cpu=BAIT, version=BAIT, started=BAIT, commit="0")
    told = theirs.protocol.model_copy(update={"description": BAIT, "images": BAIT[:60]})
    pin = StudyPin(protocol=told, data=theirs.facts)
    (theirs.study.root / "study.json").write_text(pin.model_dump_json(), encoding="utf-8")
    (theirs.study.root / "notes.md").write_text(f"{BAIT}\n\n[x](javascript:alert(1))\n", encoding="utf-8")
    plan = {"claims": {BAIT: BAIT}, "seeds": [{"se-r16": 1, BAIT: 1}], "written": BAIT, "basis": BAIT}
    (theirs.study.root / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    (theirs.open.path / "failure.json").write_text(json.dumps({"cause": BAIT, "traceback": BAIT}))
    deep = theirs.study.root / ("d" * 200)
    for name in ("=1+1", "a\nb", "\x1b[2J", "\udcff", "x" * 255, "..."):
        deep /= name if len(os.fsencode(deep / name)) < 900 else "y"
        deep.mkdir(parents=True)
    (theirs.study.root / f"{'z' * 230}-s0-0123456789").mkdir()


def pickles(theirs: Theirs) -> None:
    trap = Trap(theirs.outside)
    torch.save({"conv1.weight": trap}, theirs.finished.weights_file)
    (theirs.open.path / "last.ckpt").write_bytes(pickle.dumps(trap))
    torch.save({"run_id": theirs.open.path.name, "state_dict": trap}, theirs.open.path / "previous.ckpt")
    path = theirs.finished.path / "predictions.npz"
    np.savez(path, n=np.array(200), wrong=np.array([trap]), ce=np.array([trap]))
    told = json.loads(theirs.finished.record_file.read_text(encoding="utf-8"))
    told["sha256"] |= digests({path.name: path.read_bytes()})
    theirs.finished.record_file.write_text(json.dumps(told), encoding="utf-8")


def honest(theirs: Theirs) -> None:
    """Else nothing would be shown that a wrong kind was not shown."""


KINDS = (honest, links_to_folders, links_to_files, only_notes_are_a_link, pipes, a_pipe_for_a_pin, texts, pickles)


WRITTEN = ("results/first", "results/mine", "results/.networks", "reports/first", "mine")
"""Where commands about the archive's study may write, or create: it, what it is merged into, and its report."""


def content(place: Path) -> dict[str, tuple[bytes, int]]:
    """All files and folders below a place, with their times; no link is followed."""

    def look(path: Path) -> tuple[bytes, int]:
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        read = {stat.S_IFREG: path.read_bytes, stat.S_IFLNK: lambda: os.fsencode(path.readlink())}
        return read.get(kind, lambda: b"")(), status.st_mtime_ns

    return {str(path): look(path) for path in (place, *place.rglob("*"))}


def outside_of_the_study(place: Path) -> dict[str, tuple[bytes, int]]:
    """The same of all but `WRITTEN`; the folders in which these lie may get them, and nothing else."""
    home, found = place / "home", content(place)
    own = [str(home / name) for name in WRITTEN]
    above = {str(path) for name in own for path in Path(name).parents}
    rest = {name: told for name, told in found.items() if not any(f"{name}/".startswith(f"{each}/") for each in own)}
    return {name: (b"", 0) if name in above else told for name, told in rest.items()}


@contextmanager
def unpacked(kind: Callable[[Theirs], None], place: Path) -> Iterator[Path]:
    """The archive's study as results/first; what lies outside has to stay as it is, and unseen."""
    outside = place / "outside"
    outside.mkdir()
    for name in (*OURS, "notes.md", "plan.json", "latency.json", "skipped.txt"):
        (outside / name).write_text(SECRET)
    theirs = Theirs(place / "theirs" / "first", outside)
    kind(theirs)
    with tarfile.open(place / "archive.tar", "w") as archive:
        archive.add(place / "theirs" / "first", "results/first")
        svg = place / "class_means.svg"
        svg.write_text("<svg><script>alert(2)</script></svg>")
        archive.add(svg, "reports/first/excitation/se-r16/class_means.svg")
        numbers = place / "blocks.csv"
        numbers.write_text(f"block,mean\n{BAIT},0.5\n", encoding="utf-8")
        archive.add(numbers, "reports/first/excitation/se-r16/blocks.csv")
    home = place / "home"
    with tarfile.open(place / "archive.tar") as archive:
        archive.extractall(home, filter="fully_trusted")
    own = Study(home / "results" / "own")
    own.begin(theirs.protocol, theirs.facts)
    (own.root / "notes.md").write_text("ours")
    (home / "reports" / "own").mkdir()
    (home / "reports" / "own" / "index.html").write_text("ours")
    (home / "weights.pt").write_text(SECRET)
    before = outside_of_the_study(place)
    assert len(before) > 30
    yield home
    assert outside_of_the_study(place) == before
    shown = [path for path in home.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in shown:
        if path.suffix in (".html", ".md", ".csv", ".tex") and "reports" in path.relative_to(home).parts:
            text = path.read_text(encoding="utf-8")
            assert SECRET not in text, path
            if path.name != "blocks.csv":
                assert not {"\x1b", "\x07"} & set(text), path
                assert "<script>alert" not in text or path.suffix in (".csv", ".tex"), path


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise AssertionError(f"not answered in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


WORDS = ["--ablations", str(DECLARED), *(word for change in SHORT for word in ("--set", change))]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_command_that_reads_an_archive_touches_or_shows_what_lies_outside(
    kind: Callable[[Theirs], None], tmp_path: Path
) -> None:
    with unpacked(kind, tmp_path) as home:
        results, reports = ["--results", str(home / "results")], ["--reports", str(home / "reports")]
        for command in (
            ["verify", *results],
            ["merge", str(home / "results" / "first"), "--into", "mine", "--new", *results],
            ["merge", str(home / "results"), "--into", "first", "--new", "--results", str(home / "mine")],
            ["status", "ratio", "--study", "first", *WORDS, *results],
            ["report", "ratio", "--study", "first", *WORDS, *results, *reports],
        ):
            with within(120):
                done = CliRunner().invoke(main, command)
            assert done.exit_code in (0, 1, 2), command
            assert done.exception is None or isinstance(done.exception, SystemExit), (command, done.exception)
            assert not {"\x1b", "\x07"} & set(done.output), command
            if kind is honest:
                assert done.exit_code == 0, done.output


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_nor_does_a_command_that_trains(kind: Callable[[Theirs], None], tmp_path: Path) -> None:
    with unpacked(kind, tmp_path) as home:
        for command in (
            ["run", "ratio", "--rows", "r16", "--seeds", "1", "--device", "cpu", "--jobs", "2", "--study", "first"],
            ["excitation", "ratio:r16", "--study", "first", "--device", "cpu", "--reports", str(home / "reports")],
        ):
            call = [sys.executable, "-m", "senet_ablate", *command, *WORDS, "--results", str(home / "results")]
            done = subprocess.run(call, capture_output=True, text=True, timeout=300, check=False, cwd=home)
            assert done.returncode in (0, 1, 2), done.stderr
            assert "Traceback" not in done.stderr
