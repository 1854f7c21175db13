"""Where a file is read: each kind of file that commands read, with what a disk, an editor or a stranger makes of it."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from garbled import CONTENTS, FOLDER, HONEST, RECORD, anything, changed_bytes, changed_tree, refusal
from helpers import PLAIN, R4, R16, SE
from hypothesis import strategies as st
from places import ABLATIONS, CANARY, SET_ASIDE, WORK, Place, named, scratch, shell
from sound import begun, write_sound

from senet_ablate.execution.worker import attempt
from senet_ablate.files import write_atomic
from senet_ablate.models.build import build_network
from senet_ablate.models.weights import of_file
from senet_ablate.report.write import fill
from senet_ablate.results.lease import Holder, Watch
from senet_ablate.results.records import Failure, Latency, Progress, Timing, digests
from senet_ablate.results.store import Study
from senet_ablate.spec.ablation import Arm
from senet_ablate.spec.loading import load_protocol
from senet_ablate.spec.network import Network
from senet_ablate.spec.protocol import Recipe
from senet_ablate.spec.schema import Spec
from senet_ablate.training.request import RunRequest


class Hostile:
    """Pickled, it makes a folder when it is read."""

    def __reduce__(self) -> Any:
        return os.mkdir, (CANARY,)


# --- declarations ---


def toml(value: Any) -> str:
    """A value as TOML has it; what TOML has not (null, characters that are none) comes out as a mistake."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value)


def declared(honest: str) -> st.SearchStrategy[bytes]:
    """A TOML file with changed values or changed bytes."""
    tree = tomllib.loads(honest)
    written = changed_tree(tree).map(lambda t: "\n".join(f"{json.dumps(key)} = {toml(t[key])}" for key in t).encode())
    return written | changed_bytes(honest.encode())


OWN = (ABLATIONS / "protocols" / "digits.toml").read_text(encoding="utf-8").replace('"digits"', '"own"', 1)
MINE = (ABLATIONS / "table10_ratio.toml").read_text(encoding="utf-8").replace('"ratio"', '"mine"', 1).partition("\n")[2]


def answer_protocol(content: bytes) -> str | None:
    with scratch() as folder:
        path = folder / "own.toml"
        path.write_bytes(content)
        return named(shell("status", "ratio", "--rows", "r2", "--protocol", str(path)), str(path))


def answer_table(content: bytes) -> str | None:
    with scratch() as folder:
        shutil.copytree("ablations/protocols", folder / "protocols")
        (folder / "mine.toml").write_bytes(content)
        return named(shell("status", "mine", "--ablations", str(folder)), "mine.toml")


# --- studies ---

LATENCY = Latency(
    device="cpu", cpu="A", threads=1, precision="fp32", torch="2", batch=4, rounds=6,
    networks={"se-r16": {kind: Timing(median=2.0, low=1.0, high=3.0) for kind in ("one_image", "training_step")}},
)  # fmt: skip
OF_A_STUDY = {
    Path(name).name: content for name, content in FOLDER.items() if not name.startswith(("lease", "pro", "fai"))
}


def json_files(names: tuple[str, ...], files: dict[str, bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
    """One of these files with changed values or changed bytes."""

    def one(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        spoilt = changed_bytes(files[name]) | st.binary(max_size=50)
        if name.endswith(".json"):
            spoilt |= changed_tree(json.loads(files[name])).map(lambda tree: json.dumps(tree).encode())
        return spoilt.map(lambda content: (name, content))

    return st.sampled_from(names).flatmap(one)


def hostile_predictions() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, n=np.array(200), wrong=np.array([Hostile()]), ce=np.array([Hostile()]))
    return buffer.getvalue()


GATES = Path("reports/other/excitation/se-r16/blocks.csv")
"""What the report's page shows of an earlier `excitation`."""


def spoil(study: Study, name: str, content: bytes, *, vouched: bool) -> None:
    """Put the file where it belongs; `vouched` is by somebody who can compute checksums."""
    folder = study.run(RECORD.run_id)
    home = study.root if name in ("study.json", "plan.json", "latency.json") else folder.path
    write_atomic(study.root.parent / GATES if name == GATES.name else home / name, content)
    if vouched and name in CONTENTS:
        told = HONEST | {"sha256": digests({**CONTENTS, name: content})}
        write_atomic(folder.record_file, json.dumps(told))


def answer_study(typed_in: tuple[tuple[str, bytes], bool]) -> str | None:
    (name, content), vouched = typed_in
    with scratch() as folder:
        study = begun(Study(folder / "other"))
        write_sound(study, SE, 0)
        spoil(study, name, content, vouched=vouched)
        here = ("--study", "other", "--results", str(folder))
        for command in (("status", "ratio", "--rows", "r2"), ("plan", "ratio", "--rows", "r2"), ("report",)):
            shell(*command, *here)
        return named(shell("verify", "other", "--results", str(folder)), name, str(study.root))


def answer_report(typed_in: tuple[tuple[str, bytes], bool]) -> str | None:
    (name, content), vouched = typed_in
    with scratch() as folder:
        study = begun(Study(folder / "other"))
        for variant in (R4, R16, PLAIN):
            write_sound(study, variant, 0)
            write_sound(study, variant, 1)
        spoil(study, name, content, vouched=vouched)
        words = ("report", "ratio", "--study", "other", "--results", str(folder), "--reports", str(folder / "reports"))
        return named(shell(*words, work=()), name, str(study.root), str(folder / GATES.parent))


def answer_source(typed_in: tuple[tuple[str, bytes], bool]) -> str | None:
    (name, content), vouched = typed_in
    with scratch() as folder:
        study = begun(Study(folder / "theirs" / "other"))
        write_sound(study, SE, 0)
        spoil(study, name, content, vouched=vouched)
        without_merge = [place for place in WORK if place not in ("results.merge.merge", "results.store.Study.begin")]
        words = ("merge", str(study.root), "--into", "new", "--new", "--results", str(folder / "ours"))
        return named(shell(*words, work=without_merge), name, str(study.root))


def answer_notes(typed_in: tuple[str, bytes]) -> str | None:
    """What an unfinished run leaves; a damaged note is none."""
    name, content = typed_in
    models: dict[str, type[Spec]] = {"failure.json": Failure, "progress.json": Progress, "lease-1.json": Holder}
    with scratch() as folder:
        run = begun(Study(folder / "other")).run(RECORD.run_id)
        write_atomic(run.path / name, content)
        shell("status", "ratio", "--rows", "r2", "--study", "other", "--results", str(folder))
        Watch().look(run.path)
        try:
            models[name].model_validate_json(content)
        except ValueError:
            return SET_ASIDE
        return None


# --- weights and checkpoints ---

TINY = Network(backbone="resnet14", width=16, stem="small")
STATE = build_network(TINY, SE, in_channels=1, classes=10, resolution=8).state_dict()


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


ODD_TENSORS = st.sampled_from(
    (
        torch.zeros(()), torch.zeros(0), torch.zeros(10, 512), torch.zeros(0, 512), torch.zeros(1).expand(10**9, 512),
        torch.zeros(16, 1, 3, 3, dtype=torch.complex64), torch.zeros(16, 1, 3, 3, dtype=torch.bool),
        torch.zeros(16, 0, 3, 3),
        torch.zeros(10, 512).to_sparse(), torch.zeros(16, 1, 3, 3, device="meta"), torch.full((10, 512), torch.nan),
        3, "text", None, [1], {"a": 1}, Hostile(),
    )
)  # fmt: skip


@st.composite
def odd_states(draw: st.DrawFn) -> bytes:
    """A state dict with entries that do not belong there, or something else altogether."""
    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.sampled_from([pickle.dumps(Hostile()), saved(Hostile()), saved([STATE]), saved({}), saved(STATE), b""])
        )
    state: dict[Any, Any] = dict(STATE)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(
            st.sampled_from(["conv1.weight", "fc.weight", *list(STATE)[:9]]) | st.sampled_from(["x", 1, None, ""])
        )
        if draw(st.booleans()):
            state[name] = draw(ODD_TENSORS)
        else:
            state.pop(name, None)
    if draw(st.booleans()):
        state = {f"layer0.{name}" if str(name).startswith("conv1") else name: value for name, value in state.items()}
    return saved(state)


def answer_weights(content: bytes) -> str | None:
    with scratch() as folder:
        path = folder / "weights.pt"
        path.write_bytes(content)
        protocol = load_protocol(Path("ablations"), "digits")
        return named(refusal(lambda: of_file(path, Arm(variant=SE), protocol), "") or None, str(path))


def training_of(folder: Path) -> RunRequest:
    """The smallest run there is: one epoch on eight images."""
    protocol = load_protocol(Path("ablations"), "cifar10-folder", ["data.resolution=8"])
    recipe = Recipe(epochs=1, batch_size=4, lr=0.1)
    spec = protocol.run_spec(SE, 0).model_copy(update={"recipe": recipe, "precision": "fp32"})
    return RunRequest(spec=spec, folder=Study(folder / "other").run(spec.run_id), data_path=Path("images"))


@st.composite
def odd_checkpoints(draw: st.DrawFn) -> bytes:
    run_id = training_of(Path()).spec.run_id
    history = {"started": "now", "wall_s": 1.0, "precision": "fp32", "devices": 1, "levers": ()}
    honest = {"run_id": run_id, "curve": [], "history": history, "state_dict": {}}
    if draw(st.booleans()):
        return draw(changed_bytes(saved(honest)) | st.sampled_from([saved(Hostile()), pickle.dumps(Hostile())]))
    changed = draw(st.dictionaries(st.sampled_from([*honest, "x"]), anything | ODD_TENSORS, min_size=1, max_size=2))
    return saved(honest | changed)


def answer_checkpoint(content: bytes) -> str | None:
    """A run whose checkpoint cannot be read begins anew; one that is another's fails with a cause, or does so, too."""
    with scratch() as folder:
        request = training_of(folder)
        write_atomic(request.folder.checkpoint_file, content)
        event = attempt(request)
        assert event.kind == "finished" or (event.kind == "failed" and event.cause), event
        return event.cause or SET_ASIDE


# --- texts ---

MARKED = "before\n<!-- generated: table -->\nold\n<!-- /generated -->\nafter\n"
marks = st.lists(
    st.sampled_from(["<!-- generated: table -->", "<!-- generated: tabel -->", "<!-- generated: ../../x -->"])
    | st.sampled_from(
        ["<!-- generated: -->", "<!-- /generated -->", "\n", "\n", "text", "<!-- generated: table", "\\1"]
    ),
    max_size=6,
).map("".join)


def answer_filled(text: str) -> str | None:
    with scratch() as folder:
        tables = folder / "first" / "tables"
        tables.mkdir(parents=True)
        (tables / "table.md").write_text("# Table\n\n| a |\n|---|\n\n## More\n")
        return named(
            refusal(lambda: fill(text, folder, "first"), "") or None, "<!-- generated", "a generated block names"
        )


STUDY_FILES = tuple(sorted(OF_A_STUDY))
study_files = json_files(STUDY_FILES, OF_A_STUDY) | st.just(("predictions.npz", hostile_predictions()))
OF_A_REPORT = {
    "latency.json": LATENCY.model_dump_json().encode(),
    GATES.name: b"block,channels,mean\nSE_2_1,64,0.5\n",
    **{name: OF_A_STUDY[name] for name in ("curve.csv", "plan.json")},
}
report_files = json_files(tuple(OF_A_REPORT), OF_A_REPORT)
note_files = json_files(
    ("failure.json", "lease-1.json", "progress.json"),
    {name: FOLDER[name] for name in FOLDER if name[:3] in ("fai", "lea", "pro")},
)

FILES = (
    Place("protocol files", 9, declared(OWN), answer_protocol),
    Place("table files", 9, declared(MINE), answer_table),
    Place("study, plan, record, curve, predictions", 14, st.tuples(study_files, st.booleans()), answer_study),
    Place("the same, merged from elsewhere", 4, st.tuples(study_files, st.booleans()), answer_source),
    Place("the same and latency, reported", 1, st.tuples(report_files, st.booleans()), answer_report),
    Place("lease, progress, failure", 4, note_files, answer_notes),
    Place("weights", 4, odd_states() | changed_bytes(saved({"conv1.weight": STATE["conv1.weight"]})), answer_weights),
    Place("checkpoints", 1, odd_checkpoints(), answer_checkpoint),
    Place("texts with blocks to fill", 2, marks | st.just(MARKED), answer_filled),
)
