"""The console command `senet-ablate`, also `python -m senet_ablate`: how its process starts and ends.

What torch and Lightning import is half a million objects that live as long as the process. Python's collector would
walk them again and again while they are imported (a fifth of that time), and taking them apart at exit takes a second.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from contextlib import suppress
from typing import Any

RARELY = 10_000
"""Objects that a command makes between two collections; Python's own number is one or two thousand at most."""


class Heedless(io.FileIO):
    """Standard error on which writing never fails: a full disk or a reader that is gone ends no training."""

    def write(self, data: Any) -> int:
        """Write what can be written."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


def start() -> None:
    """The console command `senet-ablate`, in a process of its own."""
    status = 1  # of a traceback
    with suppress(AttributeError, OSError, ValueError):  # there is none, or none that is a file
        raw = io.BufferedWriter(Heedless(sys.stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, sys.stderr.encoding, "replace", line_buffering=True)

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # there is none, its reader is gone, it is closed
                stream.flush()
        os._exit(status)

    atexit.register(leave)  # the first to register is the last to be called: by then all others have tidied up
    gc.set_threshold(RARELY)
    try:
        from senet_ablate.environment import settle

        settle()
        from senet_ablate.cli.main import main

        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except KeyboardInterrupt:  # before there was a command to answer it
        status = 130
        sys.stderr.write("stopped\n")


if __name__ == "__main__":
    start()
