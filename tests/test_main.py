"""Under test: a command that leaves quickly leaves nothing undone."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from senet_ablate.environment import uncollected


def command(main):
    """What becomes of the console command when `main` is what it does."""
    imports = (
        "import atexit, sys; from senet_ablate import __main__ as entry; from senet_ablate.cli import main as cli; "
    )
    code = f"{imports}cli.main = lambda: {main}; entry.start()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("end", "status"), [("sys.exit(0)", 0), ("sys.exit()", 0), ("sys.exit(130)", 130), ("None", 0), ("exit('why')", 1)]
)
def test_the_status_is_what_the_command_says(end, status):
    done = command(end)
    assert (done.returncode, done.stderr) == (status, "why\n" if "why" in end else "")


def test_a_fault_is_a_traceback():
    done = command("1 / 0")
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_all_is_written_and_whoever_wants_to_tidy_up_does():
    done = command("[print('said'), atexit.register(print, 'tidied up'), sys.exit(3)]")
    assert (done.returncode, done.stdout) == (3, "said\ntidied up\n")


def test_folders_for_processes_to_meet_in_are_removed():
    """Multiprocessing tidies up at exit, too, and so must be imported after what ends the process."""
    code = (
        "import sys, types; from senet_ablate import __main__ as entry; "
        "cli = sys.modules['senet_ablate.cli.main'] = types.ModuleType('main'); "  # ours imports it itself
        "cli.main = lambda: print(__import__('multiprocessing.util').util.get_temp_dir()); entry.start()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    assert not Path(done.stdout.strip()).exists()


def test_nothing_is_taken_apart_at_the_end():
    # Called after what it was registered before, so by an interpreter that goes on to its own end.
    code = (
        "import atexit; atexit.register(print, 'taken apart'); "
        "from senet_ablate import __main__ as entry; from senet_ablate.cli import main as cli; "
        "cli.main = lambda: None; entry.start()"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == ""


def test_ctrl_c_before_there_is_a_command_is_no_failed_run():
    done = command("exec('raise KeyboardInterrupt')")
    assert (done.returncode, done.stderr) == (130, "stopped\n")


def test_a_process_that_imports_the_workers_server_by_mistake_keeps_its_status():
    assert (
        subprocess.run([sys.executable, "-c", "import sys, senet_ablate.execution.worker; sys.exit(3)"]).returncode == 3
    )


def failing_import():
    with uncollected():
        assert not gc.isenabled()
        raise ImportError


def test_an_import_that_fails_leaves_the_collector_on():
    with pytest.raises(ImportError):
        failing_import()
    assert gc.isenabled()


def test_a_checkout_whose_code_is_not_what_runs_is_told(call, tmp_path):
    assert call("list").stderr == ""
    (tmp_path / "senet_ablate").mkdir()
    (tmp_path / "senet_ablate" / "environment.py").touch()
    told = call("list")
    there = Path(__file__).parents[1]
    assert told.exit_code == 0
    assert (
        told.stderr == f"caution: this runs the code in {there}, not that of this folder; `make` runs this folder's\n"
    )
