"""What `make` hands on, and whose code it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

ECHO = """#!/bin/sh
printf '%s\\n' "$PYTHONPATH" "$@"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile and a .venv that looks installed, whose Python prints what it is given."""
    place = tmp_path / "a checkout"
    (place / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, place)
    python = place / ".venv" / "bin" / "python"
    python.write_text(ECHO)
    python.chmod(0o755)
    (place / ".venv" / "installed").write_text(f"{place.resolve()}\n")
    return place


def make(place: Path, *words: str, **variables: str) -> tuple[list[str], str]:
    clean = {"PATH": os.environ["PATH"]} | variables
    done = subprocess.run(["make", "-C", place, "-s", *words], capture_output=True, text=True, check=True, env=clean)
    return done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize("value", ["it's", "a b", "a  b;c&d", "$HOME", "a$(b)", '"x"', "\\", "ü", "*"])
def test_a_variable_arrives_as_it_was_typed(checkout: Path, value: str) -> None:
    out, err = make(checkout, "ablate-ratio", f"DATA={value}", f"STUDY={value}", "SEEDS=2", "ARGS=--precision fp32")
    words = ["-m", "senet_ablate", "run", "ratio", "--study", value, "--seeds", "2", "--data", value]
    assert out == [str(checkout), *words, "--precision", "fp32", "--report"]
    assert err == ""


def test_variables_of_the_shell_with_such_common_names_are_not_meant(checkout: Path) -> None:
    out, _ = make(checkout, "plan", DATA="/data", DEVICE="cuda", JOBS="8", ROWS="r2", SEEDS="", ARGS="-h", STUDY="s")
    assert out == [str(checkout), "-m", "senet_ablate", "plan"]


def test_a_users_own_modules_stay_within_reach(checkout: Path) -> None:
    out, _ = make(checkout, "plan", PYTHONPATH="/mine")
    assert out[0] == f"{checkout}:/mine"


def test_a_copied_checkout_is_noticed_and_runs_its_own_code(checkout: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkout, copy, symlinks=True)
    out, err = make(copy, "plan")
    assert out == [str(copy), "-m", "senet_ablate", "plan"]
    assert f".venv was made in {checkout}" in err
    assert "make clean install" in err


def test_a_stamp_of_before_it_said_where_is_taken_as_it_is(checkout: Path) -> None:
    (checkout / ".venv" / "installed").write_text("")
    assert make(checkout, "plan")[1] == ""


def test_a_clone_whose_git_turns_line_ends_has_sound_runs(tmp_path: Path) -> None:
    """As on Windows; what is cloned is what is committed."""
    from senet_ablate.results.store import studies
    from senet_ablate.results.verify import verify

    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs a checkout")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # The checkout may be another user's, which git does not clone from unasked.
    clean |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    clone = ["git", "clone", "--quiet", "--config", "core.autocrlf=true", ROOT, tmp_path / "clone"]
    subprocess.run(clone, check=True, capture_output=True, env=clean)
    found = {study.name: verify(study) for study in studies(tmp_path / "clone" / "results")}
    assert found
    assert {name: verdict.problems for name, verdict in found.items() if verdict.problems} == {}
    assert b"\r" not in (tmp_path / "clone" / "Makefile").read_bytes()
