"""How a broken disk, a careless hand or a stranger changes what is read: trees of values, bytes, a study's files."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers import FACTS, PROTOCOL, SE
from hypothesis import strategies as st
from sound import begun, sound_run

from senet_ablate.errors import UserError
from senet_ablate.results.records import StudyPin
from senet_ablate.results.store import Study

RECORD, CONTENTS = sound_run(SE, 0)
HONEST = json.loads(RECORD.model_dump_json())

FOLDER = {
    "record.json": RECORD.model_dump_json().encode(),
    **CONTENTS,
    "failure.json": b'{"cause": "x", "traceback": "y"}',
    "progress.json": b'{"epoch": 1, "epochs": 2}',
    "lease-1.json": b'{"host": "a", "node": "b", "pid": 1, "token": "c", "started": "d", "beat": "0"}',
    "../study.json": StudyPin(protocol=PROTOCOL, data=FACTS).model_dump_json().encode(),
    "../plan.json": b'{"claims": {}, "seeds": [{"se-r16": 3}]}',
}
"""The files of a run's folder and of its study."""

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**63, 10**400, 1e308, -0.0, 5e-324, float("nan"), float("inf")])
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["", "../../x", "/etc/passwd", "\x00", "a/b", "ok", "diverged", "0" * 64, "\ud800", "１"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def paths(tree: Any, place: tuple = ()) -> Iterator[tuple]:
    """The way to every node below the root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*place, key)
        yield from paths(value, (*place, key))


@st.composite
def changed_tree(draw: st.DrawFn, honest: dict[str, Any]) -> dict[str, Any]:
    """The honest tree with some of its nodes replaced, removed or added to."""
    tree, ways = copy.deepcopy(honest), list(paths(honest))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(ways))
        node = tree
        try:
            for key in way:
                node = node[key]
            match draw(st.sampled_from(["replace", "remove", "add"])):
                case "replace":
                    node[last] = draw(anything)
                case "remove":
                    del node[last]
                case "add":
                    node[draw(st.text(max_size=8))] = draw(anything)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the way there
    return tree


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """The content cut, extended, or with some of its bytes overwritten."""
    spoilt = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(spoilt)))
        patch = draw(st.binary(max_size=20))
        match draw(st.sampled_from(["cut", "overwrite", "insert", "zero"])):
            case "cut":
                del spoilt[start:]
            case "overwrite":
                spoilt[start : start + len(patch)] = patch
            case "insert":
                spoilt[start:start] = patch
            case "zero":
                spoilt[start : start + 64] = bytes(len(spoilt[start : start + 64]))
    return bytes(spoilt)


@contextmanager
def a_study() -> Iterator[Study]:
    """A study that has begun, without runs."""
    with tempfile.TemporaryDirectory() as folder:
        yield begun(Study(Path(folder) / "results" / "first"))


def refusal(read: Callable[[], object], none: str = "none") -> str:
    """What a reader says is wrong; `none` if it reads."""
    try:
        read()
    except UserError as error:
        return str(error)
    return none
