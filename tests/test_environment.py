"""What reaches the libraries from the shell that calls the suite: nothing that is not meant for them."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from senet_ablate import environment
from senet_ablate.environment import cache_dir, code_state, cores, ensure_sockets, scratch_dir, settle
from senet_ablate.errors import UserError
from senet_ablate.report.figures import save

ROOT = Path(__file__).parents[1]
NOTEBOOK = "module://matplotlib_inline.backend_inline"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty temporary folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def unknown_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id without an entry in passwd, as `docker run --user` makes one, and without a home."""

    def unknown(key: object) -> None:
        raise KeyError(key)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "XDG_CACHE_HOME", "SENET_ABLATE_CACHE"):
        monkeypatch.delenv(name, raising=False)


STRANGE = {
    "MPLBACKEND": NOTEBOOK,
    "MATPLOTLIBRC": "/nowhere",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
    "LOCAL_RANK": "1",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "TORCHELASTIC_RUN_ID": "none",
    "PL_TRAINER_FAST_DEV_RUN": "1",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
    "OMP_PROC_BIND": "true",
    "FORCE_COLOR": "1",
    "GIT_DIR": "/elsewhere/.git",
    "GIT_INDEX_FILE": "/elsewhere/index",
    "XDG_CACHE_HOME": "",
    "SENET_ABLATE_CACHE": " ",
    "TMPDIR": "",
    "TORCH_HOME": "",
    "WANDB_DIR": "",
    "MLFLOW_TRACKING_URI": "",
    "COLUMNS": "0",
}
MEANT = {
    "HOME": "/home/somebody",
    "PATH": "/bin",
    "CUDA_VISIBLE_DEVICES": "",
    "WANDB_PROJECT": "mine",
    "OMP_NUM_THREADS": "2",
    "TMPDIR": "/scratch",
    "LANG": "",
}


def test_what_is_not_meant_for_the_suite_is_dropped_and_what_is_stays() -> None:
    variables = STRANGE | {"MPLCONFIGDIR": tempfile.gettempdir()}
    settle(variables)
    assert variables == {"MPLBACKEND": "agg", "MPLCONFIGDIR": tempfile.gettempdir()}
    variables = dict(MEANT)
    settle(variables)
    assert variables.items() >= MEANT.items()
    assert variables.keys() - MEANT.keys() == {"MPLBACKEND", "MPLCONFIGDIR"}


@pytest.mark.parametrize(
    ("columns", "kept"), [("0", False), ("-1", False), ("", False), ("9" * 30, False), ("132", True)]
)
def test_a_width_that_no_terminal_has_is_none(columns: str, kept: bool) -> None:
    variables = {"COLUMNS": columns}
    settle(variables)
    assert ("COLUMNS" in variables) == kept


def test_a_user_without_name_and_home_gets_both(temporary: Path, unknown_user: None) -> None:
    variables: dict[str, str] = {}
    settle(variables)
    assert variables["LOGNAME"] == f"uid{os.getuid()}"
    home = Path(variables["HOME"])
    assert home == temporary / f"senet-ablate-uid{os.getuid()}"
    assert home.stat().st_mode & 0o777 == 0o700
    assert Path(variables["MPLCONFIGDIR"]) == home / "matplotlib"


def test_nothing_is_asked_for_where_it_is_not_used(unknown_user: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No home, no name, no temporary folder: a list of tables needs none of them."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: (_ for _ in ()).throw(FileNotFoundError("no usable folder")))
    settle({})
    with pytest.raises(UserError, match="TMPDIR=FOLDER"):
        scratch_dir()


@pytest.mark.parametrize("value", ["", "  ", "relative/cache"])
def test_a_cache_that_is_no_absolute_path_is_ignored(
    value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("SENET_ABLATE_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "senet-ablate"


def test_copies_go_to_the_temporary_folder_where_the_home_cannot_be_written(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = temporary / "home"
    home.write_text("a file, so that no user, not even root, can write into it")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SENET_ABLATE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(home))
    assert cache_dir() == temporary / f"senet-ablate-uid{os.getuid()}"
    monkeypatch.setenv("SENET_ABLATE_CACHE", str(temporary / "mine"))
    assert cache_dir() == temporary / "mine"


@pytest.mark.parametrize("what", ["a file", "a link"])
def test_what_somebody_else_put_into_the_temporary_folder_is_not_used(temporary: Path, what: str) -> None:
    place = temporary / f"senet-ablate-uid{os.getuid()}"
    if what == "a file":
        place.write_text("mine")
    else:
        place.symlink_to(temporary)
    with pytest.raises(UserError, match=r"somebody else's; .* TMPDIR=FOLDER"):
        scratch_dir()


def test_a_temporary_folder_too_deep_for_sockets_gives_way_to_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(deep))
    ensure_sockets()
    assert len(tempfile.gettempdir()) < 20
    assert list(deep.iterdir()) == []
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr(environment, "_takes_sockets", lambda: False)
    with pytest.raises(UserError, match=r"TMPDIR=.*ddd: no socket .* TMPDIR=FOLDER"):
        ensure_sockets()
    assert os.environ["TMPDIR"] == str(deep)


def test_a_usual_temporary_folder_stays(temporary: Path) -> None:
    ensure_sockets()
    assert os.environ["TMPDIR"] == str(temporary)
    assert list(temporary.iterdir()) == []


def groups(root: Path, cgroup: str, **files: str) -> tuple[Path, Path]:
    """A tree of control groups as the kernel shows it, and what it says of this process."""
    for name, content in files.items():
        place = root / "groups" / name.replace("__", "/")
        place = place.with_name(place.name.replace("_max", ".max").replace("cpu_cfs", "cpu.cfs"))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content + "\n")
    (root / "mine").write_text(cgroup + "\n")
    return root / "groups", root / "mine"


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/", {"cpu_max": "max 100000"}, 16),
        ("0::/", {"cpu_max": "400000 100000"}, 4),
        ("0::/", {"cpu_max": "150000 100000"}, 1),
        ("0::/", {"cpu_max": "50000 100000"}, 1),
        ("0::/a/b", {"a__cpu_max": "300000 100000", "a__b__cpu_max": "max 100000"}, 3),
        ("0::/a/b", {"a__cpu_max": "300000 100000", "a__b__cpu_max": "200000 100000"}, 2),
        ("0::/of/the/host", {"cpu_max": "500000 100000"}, 5),
        ("0::/", {"cpu_max": "garbled"}, 16),
        ("0::/", {}, 16),
        (
            "4:cpu,cpuacct:/docker/1\n3:cpuset:/",
            {"cpu__cpu_cfs_quota_us": "250000", "cpu__cpu_cfs_period_us": "50000"},
            5,
        ),
        ("4:cpu:/x", {"cpu__x__cpu_cfs_quota_us": "200000", "cpu__x__cpu_cfs_period_us": "100000"}, 2),
        ("4:cpu:/\n0::/", {"cpu__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_period_us": "100000"}, 16),
        ("no group at all", {}, 16),
    ],
)
def test_a_containers_quota_counts_as_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, files: dict[str, str], expected: int
) -> None:
    """docker run --cpus 4 binds to no core: 64 workers would share the time of four."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    assert cores(*groups(tmp_path, cgroup, **files)) == expected


def git(where: Path, *words: str) -> str:
    settings = ("user.name=n", "user.email=e", f"safe.directory={where}")
    command = ["git", "-C", str(where), *(word for setting in settings for word in ("-c", setting)), *words]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=clean).stdout.strip()


def test_a_record_never_has_the_commit_of_a_callers_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git hook that trains has GIT_DIR and GIT_INDEX_FILE of the repository it was called for."""
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "another")
    code_state.cache_clear()
    expected = git(ROOT, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(ROOT))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    try:
        assert code_state()[0] == expected
    finally:
        code_state.cache_clear()


def test_a_users_style_changes_no_figure() -> None:
    def drawn() -> bytes:
        figure = Figure(figsize=(2, 2))
        figure.subplots().plot([1, 2], label="line")
        return save(figure, "svg")

    usual = drawn()
    with mpl.rc_context({"savefig.facecolor": "red", "savefig.transparent": True, "savefig.bbox": "tight"}):
        assert drawn() == usual


SETTLED = """
import os, sys
from senet_ablate.environment import settle
settle()
import matplotlib
assert matplotlib.rcParams["font.size"] == 10, matplotlib.rcParams["font.size"]
assert matplotlib.get_backend() == "agg"
assert os.getcwd() == os.path.realpath(sys.argv[1])
"""


@pytest.mark.parametrize("content", [b"font.size: 33\n", b"\xff\xfe no text", b"backend: nowhere\n"])
def test_a_matplotlibrc_in_the_working_directory_is_not_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "matplotlibrc").write_bytes(content)
    variables = os.environ | {"MPLBACKEND": NOTEBOOK, "MATPLOTLIBRC": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SETTLED, tmp_path], cwd=tmp_path, env=variables, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def run_digits(place: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Train one network for three epochs and report, in a process of its own."""
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "senet_ablate", "run", "ratio", "--rows", "r16", "--seeds", "1", "--report"]
    command += ["--set", "recipe.epochs=3", "--study", "s", "--jobs", "1", "--ablations", str(ROOT / "ablations")]
    return subprocess.run(command, cwd=place, env=variables, capture_output=True, text=True, timeout=300)


def test_a_command_prints_the_same_where_the_shell_says_it_has_no_width(tmp_path: Path) -> None:
    def printed(**more: str) -> str:
        variables = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "senet_ablate", "list"]
        return subprocess.run(command, env=variables | more, capture_output=True, text=True, cwd=tmp_path).stdout

    assert "ratio" in printed()
    assert printed(COLUMNS="0") == printed(COLUMNS="1") == printed(COLUMNS="80") == printed()


@pytest.mark.slow
def test_a_study_from_the_worst_of_shells_is_the_study_from_a_clean_one(tmp_path: Path) -> None:
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    good = run_digits(tmp_path / "good", clean | {"HOME": os.environ["HOME"]})
    assert good.returncode == 0, good.stderr
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "matplotlibrc").write_bytes(b"axes.facecolor: red\nbackend: nowhere\n")
    deep = bad / ("d" * 90)
    deep.mkdir()
    done = run_digits(bad, clean | STRANGE | {"TMPDIR": str(deep), "HOME": "", "USER": ""})
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for name in ("*/predictions.npz", "*/curve.csv"):
        ours, theirs = (list((place / "results" / "s").glob(name)) for place in (bad, tmp_path / "good"))
        assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]
    figures = sorted((tmp_path / "good" / "reports" / "s" / "figures").glob("*.svg"))
    assert figures
    for figure in figures:
        assert (bad / "reports" / "s" / "figures" / figure.name).read_bytes() == figure.read_bytes()
    assert sorted(path.name for path in bad.iterdir()) == [deep.name, "matplotlibrc", "reports", "results"]
