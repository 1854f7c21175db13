"""A study under injected faults, with its drivers, and what the faults did to it."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lives import Life, Stable, is_stopped, marked, send

from senet_ablate.errors import UserError
from senet_ablate.files import read_file
from senet_ablate.results.records import StudyPlan
from senet_ablate.results.store import Study


@dataclass
class Arena:
    """A study and its drivers, what was done to them, and what is to be undone when its time has come.

    `suspects` are runs of which a user may be told to remove the folder; `removed` counts finished runs whose folder
    was removed, because the suite said so or as a fault: these alone may finish once more. `outside` is a folder that
    is nobody's business, to which links lead; `strange` is what was put in the place of files.
    """

    rng: random.Random
    study: Path
    stable: Stable
    disk: Path | None
    outside: Path
    strange: list[Path] = field(default_factory=list)
    suspects: set[str] = field(default_factory=set)
    removed: Counter[str] = field(default_factory=Counter)
    removed_at: dict[str, float] = field(default_factory=dict)
    _undo: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def folders(self, *, finished: bool) -> list[Path]:
        """Folders of runs, finished or begun; a link that was put in the place of one is none."""
        found = (path for path in sorted(self.study.glob("*-s*")) if path.is_dir() and not path.is_symlink())
        return [path for path in found if (path / "record.json").exists() == finished]

    def plan_elsewhere(self, name: str) -> bool:
        """Whether the plan is whole in the other of its two files, or no run was begun and no driver is about to begin one.

        Who loses both has lost it.
        """
        study = Study(self.study)
        try:
            if name == "plan.json":
                pin = study.pin()
                there = pin is not None and pin.plan is not None
            else:
                StudyPlan.model_validate_json(read_file(study.root / "plan.json"))  # else a pipe would be waited for
                there = True
        except (OSError, ValueError, UserError):
            there = False
        return there or not (study.begun() or self.stable.living())

    def later(self, seconds: float, undo: Callable[[], object]) -> None:
        """Undo something after a while."""
        self._undo.append((time.monotonic() + seconds, undo))

    def undo(self, *, everything: bool = False) -> None:
        """Undo what is due."""
        due = [each for each in self._undo if everything or each[0] <= time.monotonic()]
        self._undo = [each for each in self._undo if each not in due]
        for _, undo in due:
            undo()

    def driver(self, *, begun: bool = True) -> Life | None:
        """Some driver; one whose workers are up, so that each gets something done before it ends."""
        found = [life for life in self.stable.living() if not begun or life.workers()]
        return self.rng.choice(found) if found else None

    def worker(self) -> int | None:
        """Some worker that is not stopped."""
        workers = [pid for life in self.stable.living() for pid in life.workers() if not is_stopped(pid)]
        return self.rng.choice(workers) if workers else None

    def pause(self, pid: int, seconds: float) -> None:
        """Stop a process, and let it go on later."""
        send(pid, signal.SIGSTOP)
        self.later(seconds, lambda: pid in marked(self.stable.mark) and send(pid, signal.SIGCONT))

    def forget(self, folder: Path) -> None:
        """Remove a run's folder at one stroke; if it was finished, the run may finish once more."""
        aside = self.study.parent / f"removed-{folder.name}"
        with suppress(OSError):
            folder.rename(aside)
            self.removed[folder.name] += (aside / "record.json").exists()
        self.removed_at[folder.name] = time.monotonic()
        shutil.rmtree(aside, ignore_errors=True)  # somebody may be writing there
