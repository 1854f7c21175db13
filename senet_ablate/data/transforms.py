"""From a decoded image to what the network sees: resize, crop, augment, normalise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from senet_ablate.spec.protocol import Augmentation, DataConfig, Mix, Policy


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of pixels scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (N, C, H, W) to float32 of mean 0 and deviation 1, channels last."""
        scale = torch.tensor([1 / (255 * std) for std in self.std], device=pixels.device).view(1, -1, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)], device=pixels.device)
        x = pixels.to(torch.float32, memory_format=torch.channels_last)
        return torch.addcmul(shift.view(1, -1, 1, 1), x, scale)


IMAGENET_NORMALISATION = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def crop_and_flip(images: Tensor, offsets: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Cut each image out of its zero-padded self and mirror some, a whole batch at once.

    Args:
        images: (N, C, H, W), any type.
        offsets: int64 (N, 2), row and column of each crop's corner in the padded image, 0 to 2 * padding.
        flips: bool (N,), which images to mirror left to right.
        padding: pixels of zeros on each side.

    Returns:
        (N, C, H, W) of the same type.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4) if padding else images
    rows = offsets[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(n, width)
    columns = offsets[:, 1:] + torch.where(flips[:, None], columns.flip(1), columns)
    batch = torch.arange(n, device=images.device)[:, None, None]
    # One gather over (N, H, W, C): channels stay together, as the network wants them.
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def evaluation_view(config: DataConfig) -> v2.Transform:
    """Short side to `config.short_side`, then the centre `resolution` x `resolution` (section 5.1)."""
    return v2.Compose([v2.Resize(config.short_side, antialias=True), v2.CenterCrop(config.resolution)])


def training_view(config: DataConfig, augmentation: Augmentation) -> v2.Transform:
    """The random view of one image: the ImageNet crop, or the evaluation view padded and cropped; then the flip."""
    steps: list[v2.Transform] = []
    if augmentation.resized_crop:
        steps += [v2.RandomResizedCrop(config.resolution, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), antialias=True)]
    else:
        steps += [evaluation_view(config)]
    if augmentation.crop_padding:
        steps += [v2.RandomCrop(config.resolution, padding=augmentation.crop_padding)]
    if augmentation.horizontal_flip:
        steps += [v2.RandomHorizontalFlip()]
    return v2.Compose(steps)


POLICIES: dict[Policy, Callable[[], v2.Transform]] = {
    "trivial-augment": v2.TrivialAugmentWide,
    "rand-augment": v2.RandAugment,
    "random-erasing": v2.RandomErasing,
}


def apply_policies(images: Tensor, policies: Sequence[Policy], seeds: Iterable[int]) -> Tensor:
    """Change each image as torchvision's policies do, its draws from a seed of its own.

    Args:
        images: uint8 (N, C, H, W).
        policies: their names, in order.
        seeds: one for each image.

    Returns:
        uint8 (N, C, H, W).
    """
    if not policies:
        return images
    steps = v2.Compose([POLICIES[name]() for name in policies])
    changed = []
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images, seeds, strict=True):
            torch.default_generator.manual_seed(seed)  # of the processor alone: layers draw from the device's
            changed.append(steps(image))
    return torch.stack(changed)


MIXES: dict[Mix, Callable[..., v2.Transform]] = {"mixup": v2.MixUp, "cutmix": v2.CutMix}


def mix_batch(
    images: Tensor, labels: Tensor, augmentation: Augmentation, classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with the one before it, as torchvision's MixUp or CutMix do, with draws from `seed`.

    Args:
        images: float32 (N, C, H, W).
        labels: int64 (N,).
        augmentation: which of the two, and its parameter; with both, `seed` decides.
        classes: their number.
        seed: of the share and, for CutMix, the box.

    Returns:
        Images of the same type and memory format, and the shares of the classes, float32 (N, classes).
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the processor alone: layers draw from the device's
        name = augmentation.mix[int(torch.randint(len(augmentation.mix), ()))]
        mixed, shares = MIXES[name](alpha=augmentation.mix_alpha, num_classes=classes)(images, labels)
    return mixed.contiguous(memory_format=torch.channels_last), shares
