"""The Squeeze-and-Excitation block (section 3, Fig. 3): squeezes and gates of Tables 11, 12, 16, and our controls.

What blocks of other kinds share with it is `ChannelAttention`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senet_ablate.spec.network import Excitation, SEConfig


def squeeze_avg(x: Tensor) -> Tensor:
    """Squeeze by global average pooling (Eq. 2): (N, C, H, W) -> (N, C, 1, 1)."""
    # Not `mean`, whose backward fills a map before it divides: this one divides first and passes
    # over the map two times less.
    return x.sum(dim=(2, 3), keepdim=True) / (x.shape[2] * x.shape[3])


def squeeze_max(x: Tensor) -> Tensor:
    """Squeeze by global max pooling (Table 11): (N, C, H, W) -> (N, C, 1, 1). Equal maxima share the gradient."""
    return x.amax(dim=(2, 3), keepdim=True)


def squeeze_none(x: Tensor) -> Tensor:
    """No squeeze (Table 16): the map stays (N, C, H, W) and each pixel gets its own gate."""
    return x


# The trace in `models/survey.py` counts aten::sum and aten::amax as the squeeze: write it as these reductions.
SQUEEZES: dict[str, Callable[[Tensor], Tensor]] = {"avg": squeeze_avg, "max": squeeze_max, "none": squeeze_none}


@dataclass(frozen=True)
class Gating:
    """What a gate makes of W2 relu(W1 z), how that meets the map, and whether the two layers are learnt."""

    activation: Callable[[Tensor], Tensor]
    combine: Callable[[Tensor, Tensor], Tensor] = torch.mul
    learnt: bool = True


def one_half(u: Tensor) -> Tensor:
    """The sigmoid of 0, whatever the image."""
    return torch.full_like(u, 0.5)


def unchanged(u: Tensor) -> Tensor:
    """No activation."""
    return u


GATES: dict[str, Gating] = {
    "sigmoid": Gating(torch.sigmoid),
    "tanh": Gating(torch.tanh),
    "relu": Gating(torch.relu),
    "constant": Gating(one_half, learnt=False),
    "random": Gating(torch.sigmoid, learnt=False),
    "none": Gating(unchanged, combine=torch.add),
}


class ChannelAttention(nn.Module, ABC):
    """Recalibrate channels: x * gate(F(squeeze(x))) (Eqs. 2 to 4), where F is what a kind of block learns.

    Maps (N, C, H, W) to (N, C, H, W). A block of another kind says which layers it has and what they make of z.

    Args:
        channels: C, the width of the map that is gated.
        config: squeeze, gate, and what the kind of block reads; or these as keywords.
    """

    kind: Excitation

    def __init__(self, channels: int, config: SEConfig | None = None, **settings: Any) -> None:
        super().__init__()
        if config is not None and settings:
            raise TypeError(f"settings as keywords or as a config, not both: {', '.join(settings)}")
        config = config or SEConfig(excitation=self.kind, **settings)
        self.config = config
        self.squeeze = SQUEEZES[config.squeeze]
        self.gating = GATES[config.gate]
        self.add_layers(channels)
        self.requires_grad_(self.gating.learnt)

    @abstractmethod
    def add_layers(self, channels: int) -> None:
        """Give the block its layers. They are 2-d convolutions: what draws the first weights knows those."""

    @abstractmethod
    def layers(self, z: Tensor) -> Tensor:
        """F: what the gate is given, in the shape of the squeezed map z, (N, C, 1, 1) or (N, C, H, W)."""

    @property
    @abstractmethod
    def inner(self) -> tuple[str, int]:
        """The size that the block chooses by its C, and how it is called."""

    def excitation(self, x: Tensor) -> Tensor:
        """The gate values s of a map (Eq. 3): (N, C, 1, 1), or (N, C, H, W) without squeeze."""
        return self.gating.activation(self.layers(self.squeeze(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel (Eq. 4), or each pixel of it without squeeze; the ungated control adds."""
        return self.gating.combine(x, self.excitation(x))

    def extra_repr(self) -> str:
        """Show what the parameters alone would not."""
        return f"squeeze={self.config.squeeze}, gate={self.config.gate}"


class SqueezeExcitation(ChannelAttention):
    """The paper's block: F(z) = W2 relu(W1 z) (Eq. 3), whose hidden width is C // r.

    Both layers are 1x1 convolutions, which on a squeezed map are the paper's fully connected layers, so that
    no-squeeze (Table 16) differs in nothing but the squeeze. Of `config` it reads reduction r and bias, too.

    Raises:
        ValueError: C // r is 0.

    Example:
        >>> block = SqueezeExcitation(64, reduction=16, squeeze="avg", gate="sigmoid")
        >>> block(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    kind = "fc"

    def add_layers(self, channels: int) -> None:
        """W1 and W2."""
        hidden = channels // self.config.reduction
        if hidden == 0:
            raise ValueError(f"reduction = {self.config.reduction} leaves no hidden channel of {channels}")
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=self.config.bias)
        self.expand = nn.Conv2d(hidden, channels, 1, bias=self.config.bias)

    def layers(self, z: Tensor) -> Tensor:
        """W2 relu(W1 z)."""
        return self.expand(torch.relu(self.reduce(z)))

    @property
    def inner(self) -> tuple[str, int]:
        """The hidden width."""
        return "hidden", self.reduce.out_channels

    def extra_repr(self) -> str:
        """Show what the parameters alone would not."""
        return f"{super().extra_repr()}, reduction={self.config.reduction}"
