"""The hidden width of a block: C // r, as in SE, unless its own paper has another rule."""

from __future__ import annotations


def hidden_width(channels: int, reduction: int) -> int:
    """C // r.

    Raises:
        ValueError: that is no channel at all.
    """
    if not 1 <= reduction <= channels:
        raise ValueError(f"reduction = {reduction!r} leaves no hidden channel of {channels}: expected 1 to {channels}")
    return channels // reduction
