"""The Squeeze-and-Excitation block (section 3, Fig. 3): squeezes and gates of Tables 11, 12, 16, and our controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senet_ablate.seeding import initialise
from senet_ablate.spec.network import SEConfig, at_stage

__all__ = ["SqueezeExcitation"]


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


def double_sigmoid(u: Tensor) -> Tensor:
    """A gate that starts at 1: twice the sigmoid."""
    return 2 * torch.sigmoid(u)


def unchanged(u: Tensor) -> Tensor:
    """No activation."""
    return u


GATES: dict[str, Gating] = {
    "sigmoid": Gating(torch.sigmoid),
    "tanh": Gating(torch.tanh),
    "relu": Gating(torch.relu),
    "double-sigmoid": Gating(double_sigmoid),
    "constant": Gating(one_half, learnt=False),
    "random": Gating(torch.sigmoid, learnt=False),
    "none": Gating(unchanged, combine=torch.add),
}


class SqueezeExcitation(nn.Module):
    """Recalibrate channels: x * gate(W2 relu(W1 squeeze(x))) (Eqs. 2 to 4), with hidden width C // r.

    Maps (N, C, H, W) to (N, C, H, W). Both layers are 1x1 convolutions, which on a squeezed map are the paper's fully
    connected layers, so that no-squeeze (Table 16) differs in nothing but the squeeze.

    Args:
        channels: C, the width of the map that is gated.
        config: squeeze, gate, reduction, bias, residual; or these as keywords.
        stage: which of a table of reductions by stage holds.

    Raises:
        ValueError: C // r is 0.

    Example:
        >>> block = SqueezeExcitation(64, reduction=16, squeeze="avg", gate="sigmoid")
        >>> block(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(self, channels: int, config: SEConfig | None = None, *, stage: int = 0, **settings: Any) -> None:
        super().__init__()
        if config is not None and settings:
            raise TypeError(f"settings as keywords or as a config, not both: {', '.join(settings)}")
        self.config = config or SEConfig(**settings)
        self.squeeze = SQUEEZES[self.config.squeeze]
        self.gating = GATES[self.config.gate]
        reduction = at_stage(self.config.reduction, stage, "se.reduction")
        hidden = channels // reduction
        if hidden == 0:
            raise ValueError(
                f"se.reduction = {reduction} leaves no hidden channel of {channels}; use a reduction of at most "
                f"{channels} or a wider network"
            )
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=self.config.bias)
        self.expand = nn.Conv2d(hidden, channels, 1, bias=self.config.bias)
        self.requires_grad_(self.gating.learnt)

    def draw(self, seed: int, name: str) -> None:
        """Draw the initial weights from streams keyed by seed and the block's name in its network (He, fan-out)."""
        initialise(self, seed, name)

    def layers(self, z: Tensor) -> Tensor:
        """W2 relu(W1 z): what the gate is given, in the shape of the squeezed map z."""
        return self.expand(torch.relu(self.reduce(z)))

    def excitation(self, x: Tensor) -> Tensor:
        """The gate values s of a map (Eq. 3): (N, C, 1, 1), or (N, C, H, W) without squeeze."""
        return self.gating.activation(self.layers(self.squeeze(x)))

    def combine(self, x: Tensor, gate: Tensor) -> Tensor:
        """Scale each channel (Eq. 4), or each pixel of it without squeeze; the ungated control adds."""
        scaled = self.gating.combine(x, gate)
        return x + scaled if self.config.residual else scaled

    def forward(self, x: Tensor) -> Tensor:
        """The recalibrated map, (N, C, H, W)."""
        return self.combine(x, self.excitation(x))

    def extra_repr(self) -> str:
        """Show what the parameters alone would not."""
        settings = f"squeeze={self.config.squeeze}, gate={self.config.gate}, reduction={self.config.reduction}"
        return f"{settings}, residual=True" if self.config.residual else settings
