"""The same study in any locale: texts are in UTF-8, whatever the environment says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import R4, SE, image_folder
from sound import begun, write_sound

from senet_ablate.data.datasets import load_data
from senet_ablate.results.store import Study
from senet_ablate.spec.protocol import DataConfig

CONFIG = DataConfig(dataset="folder", resolution=8, validation=0.25)
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def in_ascii(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        env=os.environ | ASCII | environment,
        cwd=cwd,
        check=False,
    )


LOAD = f"""
import json, locale, sys
from pathlib import Path
from senet_ablate.data.datasets import load_data
from senet_ablate.spec.protocol import DataConfig
assert locale.getpreferredencoding(False) == "ANSI_X3.4-1968", locale.getpreferredencoding(False)
config = DataConfig(**{CONFIG.model_dump()!r})
for stream in (True, False):
    for again in range(2):
        facts = load_data(config, Path(sys.argv[1]), stream=stream).facts
        print(json.dumps(facts.model_dump(mode="json")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes there")
def test_a_folders_classes_are_the_same_in_an_ascii_locale(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "Bäume", ("Hände", "ÿ", "cat"))
    (root / "train" / "cat" / "Übel.png").write_text("no image", encoding="utf-8")
    done = in_ascii("-c", LOAD, root, SENET_ABLATE_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr.decode()
    streamed, decoded = (load_data(CONFIG, root, stream=stream).facts for stream in (True, False))
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told == [json.loads(facts.model_dump_json()) for facts in (streamed, streamed, decoded, decoded)]
    assert decoded.class_names == ("Hände", "cat", "ÿ")


def test_a_study_with_texts_beyond_ascii_is_sound_and_reported_in_an_ascii_locale(tmp_path: Path) -> None:
    study = begun(Study(tmp_path / "results" / "first"))
    for variant in (SE, R4):
        write_sound(study, variant, 0, cpu="Prozessor “grün” ±")
    (study.root / "notes.md").write_text("Größe ≤ 3\n", encoding="utf-8")
    done = in_ascii("-m", "senet_ablate", "verify", "first", "--results", study.root.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    code = (
        "import sys; from pathlib import Path\n"
        "from senet_ablate import load_study\n"
        "from senet_ablate.report.write import write_report\n"
        "write_report(load_study(sys.argv[1]).assessment, Path(sys.argv[2]))"
    )
    for environment, name in ((ASCII, "ascii"), ({"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}, "utf8")):
        done = in_ascii("-c", code, study.root, tmp_path / name, **environment)
        assert done.returncode == 0, done.stderr.decode()
    page = (tmp_path / "ascii/first/index.html").read_text(encoding="utf-8")
    assert "Größe ≤ 3" in page
    assert "Prozessor “grün” ±" in page
    files = {path.relative_to(tmp_path / "utf8") for path in (tmp_path / "utf8").rglob("*.*")}
    assert len(files) > 10
    for file in files:
        assert (tmp_path / "ascii" / file).read_bytes() == (tmp_path / "utf8" / file).read_bytes(), file


def test_a_checkout_with_any_name_can_be_asked_for_its_commit(tmp_path: Path) -> None:
    """Git tells paths as bytes; a process's name is bytes, too, and may be cut in the middle of a character."""
    place = tmp_path / "Größe"
    (place / "senet_ablate").mkdir(parents=True)
    source = Path(__file__).parents[2] / "senet_ablate"
    for name in ("environment.py", "errors.py"):
        (place / "senet_ablate" / name).write_bytes((source / name).read_bytes())
    (place / "senet_ablate" / "__init__.py").touch()
    subprocess.run(["git", "init", "-q", place], check=True)
    code = "from senet_ablate.environment import code_state, cpu_model; cpu_model(); print(code_state())"
    done = in_ascii("-c", code, cwd=place)
    assert done.stdout.strip() == b"(None, None)", done.stderr  # no commit yet
