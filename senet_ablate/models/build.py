"""The one factory: network and variant in, module out."""

from __future__ import annotations

from senet_ablate.models.resnet import ResNet
from senet_ablate.seeding import initialise
from senet_ablate.spec.network import Network, Variant


def build_network(
    network: Network, variant: Variant, *, in_channels: int, classes: int, seed: int | None = None
) -> ResNet:
    """Build `network` with the blocks of `variant`: images (N, in_channels, H, W) to logits (N, classes).

    With `seed` the weights are drawn from keyed streams, so that layers which two variants share start equal.

    Raises:
        ValueError: the network cannot carry the variant; the message says what would be right.
    """
    model = ResNet(network, variant, in_channels=in_channels, classes=classes)
    if seed is not None:
        initialise(model, seed)
    return model
