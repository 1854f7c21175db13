"""What a process inherits and gives to its libraries, and what results come from: code, libraries, processor, cores."""

from __future__ import annotations

import functools
import gc
import getpass
import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import re
import socket
import stat
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path

from senet_ablate.errors import UserError

FOREIGN = re.compile(
    r"""MASTER_(ADDR|PORT) | (LOCAL_|GROUP_|ROLE_)?WORLD_SIZE | ((LOCAL|NODE|GROUP|ROLE)_)?RANK | TORCHELASTIC_.*
    | PL_.*
    | TORCH_ALLOW_TF32_CUBLAS_OVERRIDE | NVIDIA_TF32_OVERRIDE | TORCH_FORCE_(NO_)?WEIGHTS_ONLY_LOAD
    | OMP_PROC_BIND | OMP_PLACES | GOMP_CPU_AFFINITY | KMP_AFFINITY
    | MATPLOTLIBRC
    | FORCE_COLOR | TTY_COMPATIBLE
    | GIT_.*
    """,
    re.VERBOSE,
)
"""Variables of a caller's shell that are not meant for this program, but that its libraries would obey.

By line: a launcher's processes (a run makes its own group, on a port of its own); arguments of Lightning's Trainer;
precision and trust in files, of which the protocol and this code decide; cores, to which they would bind all workers
alike; styles of figures; a terminal where there is a file; another repository, which would be taken for that of the
code.
"""

PLACES = re.compile(
    r"HOME|.*_(HOME|DIR|CACHE|CACHE_DIR)|.*CONFIGDIR|TMPDIR|TEMP|TMP|SENET_ABLATE_CACHE|MLFLOW_TRACKING_URI"
)
"""Variables that name a place: an empty one is unset, not the working directory."""


def settle(variables: MutableMapping[str, str] = os.environ) -> None:
    """Give the libraries of this process, and of all it starts, what the suite gives them and nothing else.

    Called where a process of ours begins, before it imports them. May be called again.
    """
    for name, value in list(variables.items()):
        if FOREIGN.fullmatch(name) or (PLACES.fullmatch(name) and not value.strip()):
            del variables[name]
    columns = variables.get("COLUMNS", "80")
    if not columns.isdecimal() or not 20 <= int(columns[:9]) <= 10_000:  # a shell without a terminal says 0
        del variables["COLUMNS"]
    variables["MPLBACKEND"] = "agg"  # a notebook's cannot be imported outside of it
    try:
        getpass.getuser()  # as libraries do when they are imported
    except (KeyError, OSError, ImportError):  # a user id that no system file knows
        variables["LOGNAME"] = user_id()
    with suppress(UserError):  # no temporary folder either: whoever needs one will say so
        if home() is None:
            variables["HOME"] = str(scratch_dir())
        if not is_writable(Path(variables.get("MPLCONFIGDIR", ""))):
            variables["MPLCONFIGDIR"] = str(cache_dir() / "matplotlib")
    _import_matplotlib_unset()


def _import_matplotlib_unset() -> None:
    """Matplotlib reads a `matplotlibrc` of the working directory before any other; where there is one, import it now.

    What it reads from its own folder are its defaults.
    """
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None or not Path("matplotlibrc").exists():
        return
    here = Path.cwd()
    os.chdir(Path(found.origin).parent / "mpl-data")
    try:
        with uncollected():
            import matplotlib  # noqa: F401
    finally:
        os.chdir(here)


def user_id() -> str:
    """Who runs this, as the system counts: names may be missing, or shared."""
    return f"uid{os.getuid()}" if hasattr(os, "getuid") else getpass.getuser()


def home() -> Path | None:
    """The user's home, if he has one."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def is_writable(folder: Path) -> bool:
    """Whether a folder, which need not exist, could be written to; an empty path is none."""
    if folder == Path():
        return False
    above = next((place for place in (folder, *folder.parents) if os.path.exists(place)), Path())  # noqa: PTH110 - no error
    return os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)  # noqa: PTH112 - no error


def cache_dir() -> Path:
    """Where copies are kept that can be made again.

    `SENET_ABLATE_CACHE`, else a folder in the user's own cache, else, where that cannot be written, in the temporary
    folder.
    """
    if chosen := os.environ.get("SENET_ABLATE_CACHE", "").strip():
        return Path(chosen)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the standard has such a one ignored
        base = (home() or Path()) / ".cache"
    place = base / "senet-ablate"
    return place if base.is_absolute() and is_writable(place) else scratch_dir()


def scratch_dir() -> Path:
    """A folder of this user's alone in the temporary folder, which is made.

    Raises:
        UserError: there is no temporary folder, or somebody else has put something there.
    """
    try:
        place = Path(tempfile.gettempdir()) / f"senet-ablate-{user_id()}"
        with suppress(FileExistsError):
            place.mkdir(mode=0o700)
        found = place.lstat()
    except OSError as error:
        raise UserError(f"no folder for temporary files ({error}); name one with TMPDIR=FOLDER") from None
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise UserError(f"{place}: somebody else's; name another folder for temporary files with TMPDIR=FOLDER")
    return place


SOCKET = "pymp-12345678/listener-12345678"
"""How long the names are that Python's processes give to their sockets in the temporary folder."""


def ensure_sockets() -> None:
    """Have a temporary folder in which processes can meet: not too deep for a socket's name, on a disk that has any.

    Raises:
        UserError: there is none.
    """
    if _takes_sockets():
        return
    chosen = os.environ.get("TMPDIR")
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        os.environ["TMPDIR"] = folder
        tempfile.tempdir = None  # to be looked for again
        if _takes_sockets():
            return
    if chosen is not None:
        os.environ["TMPDIR"] = chosen
    raise UserError(
        f"TMPDIR={chosen or ''}: no socket can be made there, nor in /tmp; name a folder with a short path on a local "
        "disk with TMPDIR=FOLDER"
    )


def _takes_sockets() -> bool:
    if not hasattr(socket, "AF_UNIX"):
        return True
    try:
        with tempfile.TemporaryDirectory(prefix=SOCKET[:5]) as folder, socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(Path(folder) / SOCKET.partition("/")[2]))
    except OSError:
        return False
    return True


LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "numpy", "scikit-learn", "pillow", "fvcore")


@functools.cache
def package_version() -> str:
    """The installed version of this package."""
    return importlib.metadata.version("senet-ablate")


def python_version() -> str:
    """The interpreter's version."""
    return platform.python_version()


@functools.cache
def library_versions(also: str | None = None) -> dict[str, str]:
    """Versions of the libraries that can change a number, and of one more that a network comes from."""
    return {name: importlib.metadata.version(name) for name in (*LIBRARIES, *([also] if also else []))}


@functools.cache
def code_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout that runs, and whether its code differs from it; (None, None) outside one."""
    root = Path(__file__).parent.parent

    # Not a caller's repository, nor his settings of git; and no lock, for the checkout may be somebody else's to write.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    variables |= {"GIT_OPTIONAL_LOCKS": "0"}
    settings = [f"safe.directory={root}", "core.fsmonitor=false"]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *(word for setting in settings for word in ("-c", setting)), *arguments]
        answer = subprocess.run(command, capture_output=True, check=True, timeout=60, env=variables)
        return os.fsdecode(answer.stdout).strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return None, None  # installed somewhere inside another project's checkout
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "senet_ablate", "ablations"))
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None, None


def other_checkout() -> Path | None:
    """The folder of the code that runs, if it is not that of the checkout one stands in: a .venv was copied with it."""
    here, ours = Path("senet_ablate"), Path(__file__).parent
    return ours.parent if (here / Path(__file__).name).is_file() and not here.samefile(ours) else None


@functools.cache
def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


CGROUPS = Path("/sys/fs/cgroup")


def cores(groups: Path = CGROUPS, mine: Path = Path("/proc/self/cgroup")) -> int:
    """Processor cores that this process may use: those it is bound to, or what its container has as a quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(bound, int(_quota(groups, mine))))


def _quota(groups: Path, mine: Path) -> float:
    """Cores' worth of processor time that the control groups above this process leave it (version 2, then 1).

    The path of a group is the host's; in a container that does not see it, its own group is mounted as the root.
    """
    least = float(2**20)
    try:
        lines = [line.split(":", 2) for line in mine.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        return least
    for number, controllers, path in (line for line in lines if len(line) == 3):
        if number == "0":
            root, files = groups, ["cpu.max"]
        elif "cpu" in controllers.split(","):
            root, files = groups / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        group = root / path.strip("/")
        for place in (group, *(above for above in group.parents if above.is_relative_to(root))):
            with suppress(OSError, ValueError, IndexError, ZeroDivisionError):  # "max" and -1 are no limit
                quota, period = (
                    int(word) for name in files for word in (place / name).read_text(encoding="ascii").split()
                )
                if quota > 0:
                    least = min(least, quota / period)
    return least


def die_with_driver() -> None:
    """End this worker process as soon as the process that started it is gone, however it went."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    _end_after(lambda: wait([driver.sentinel]))


def die_with_parent(parent: int) -> None:
    """End this process within a second of its parent's death, even of one that came before this call."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)

    _end_after(watch)


def _end_after(watch: Callable[[], object]) -> None:
    def end() -> None:
        watch()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def unwarned() -> AbstractContextManager[object]:
    """Read data in here: what is data must not depend on the warning filter, under which a warning may be an error.

    Filters are the process's, so enter it before threads begin.
    """
    return warnings.catch_warnings(action="ignore")


@contextmanager
def uncollected() -> Iterator[None]:
    """Import in here what a process keeps for good."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
