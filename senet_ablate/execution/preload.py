"""What the workers' server imports. An error would end it again and again; each worker meets it anew and tells it."""

from contextlib import suppress

with suppress(Exception):
    import senet_ablate.execution.worker  # noqa: F401
