"""What the workers' server imports before it forks them; to be imported by nothing else."""

import atexit
import os

import senet_ablate.worker  # noqa: F401

atexit.register(os._exit, 0)  # it has nothing to tidy up, and whoever reads the driver's output waits for its end, too
