"""What makes training faster on a machine without changing what is learnt, and the switch of each.

The networks compute the same function with and without (up to the last bits of a float), start from the same weights
and see the same batches, so a lever is no part of a run's identity; which were in use is part of its provenance.
`make bench` measures what each is worth, `benchmarks/unharmed.py` whether results are the same.
"""

from __future__ import annotations

from collections.abc import Collection

LEVERS = {"kept-memory": ("cpu", "cuda", "mps"), "matrix-product": ("cpu",), "stride-first": ("cpu",)}
"""The levers and the kinds of device on which each was found to pay.

`kept-memory`: workers keep freed memory instead of handing it back at each step (`ALLOCATOR`). `matrix-product`:
convolutions of small maps are computed as matrix products. `stride-first`: a residual unit takes its stride once,
before the two convolutions that would each take it (both in `models/fastconv.py`).
"""

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
    "MALLOC_TOP_PAD_": str(1 << 26),
}
"""Keeps glibc from returning every large tensor to the system and getting it anew, zeroed, at each step.

It is read when a process starts, so it stands in the environment before the workers do; a user's own setting is kept.
"""


def in_use(device: str, left_out: Collection[str] = ()) -> tuple[str, ...]:
    """The levers that pay on a kind of device, but those left out."""
    return tuple(name for name, devices in LEVERS.items() if device in devices and name not in left_out)
