"""What the workers' server imports before it forks them."""

import atexit
import os
import sys

import senet_ablate.worker  # noqa: F401

if sys.argv[0] == "-c" and "multiprocessing.forkserver" in sys.modules:  # not in a process that wants its exit status
    # It has nothing to tidy up, and whoever reads the driver's output through a pipe waits for its end, too.
    atexit.register(os._exit, 0)
