"""What blocks have in common: a map scaled by its gate, and the checks of their settings."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class GatedBlock(nn.Module, ABC):
    """A block that scales its map by a gate, x * excitation(x): (N, C, H, W) to the same."""

    @abstractmethod
    def excitation(self, x: Tensor) -> Tensor:
        """The gate of a map, of a shape that multiplies it."""

    def forward(self, x: Tensor) -> Tensor:
        """The scaled map."""
        return x * self.excitation(x)


def check_count(name: str, value: object, paper: int) -> None:
    """Refuse what is no number of things.

    Raises:
        ValueError: it is no integer of 1 or more; the message has the paper's own.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} = {value!r}: expected an integer of 1 or more; the paper has {paper}")


def hidden_width(channels: int, reduction: int) -> int:
    """C // r.

    Raises:
        ValueError: r is no such integer, or leaves no channel.
    """
    check_count("reduction", reduction, 16)
    if reduction > channels:
        raise ValueError(f"reduction = {reduction} leaves no hidden channel of {channels}: expected 1 to {channels}")
    return channels // reduction
