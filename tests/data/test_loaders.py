"""Batches: the order of an epoch, random views keyed by image, resident images, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import random_image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import RandAugment, RandomErasing, TrivialAugmentWide
from torchvision.transforms.v2 import functional as tv

from senet_ablate.data import loaders
from senet_ablate.data.datasets import load_data
from senet_ablate.data.loaders import EpochSampler, FileSplit, Loader, MixingLoader, ResidentSplit, Split
from senet_ablate.data.transforms import IMAGENET_NORMALISATION, POLICIES, Normalisation, crop_and_flip
from senet_ablate.seeding import generator, stream_seed
from senet_ablate.spec.protocol import Augmentation, DataConfig, Mix, Policy

CPU = torch.device("cpu")
CROP_AND_FLIP = Augmentation(crop_padding=2, horizontal_flip=True)
IMAGENET_CROP = Augmentation(resized_crop=True, horizontal_flip=True)
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # torchvision documents them so

shapes = st.tuples(st.integers(1, 120), st.integers(1, 12), st.integers(1, 4))  # images, share of a batch, processes


def order(
    size: int, seed: int | None, batch_size: int, *, epoch: int = 0, rank: int = 0, world: int = 1
) -> EpochSampler:
    sampler = EpochSampler(size, seed=seed, batch_size=batch_size, rank=rank, world=world)
    sampler.set_epoch(epoch)
    return sampler


def batches(sampler: EpochSampler) -> list[list[int]]:
    """Indices of one process, cut into its shares of the batches."""
    return [part.tolist() for part in sampler.indices().split(sampler.share)]


@given(shape=shapes, seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_an_epoch_has_each_image_at_most_once_and_only_whole_batches(
    shape: tuple[int, int, int], seed: int, epoch: int
) -> None:
    size, batch_size, _ = shape
    listed = list(order(size, seed, batch_size, epoch=epoch))
    indices = [index for _, index in listed]
    assert all(number == epoch for number, _ in listed)
    assert len(indices) == len(set(indices)) == size // batch_size * batch_size
    assert set(indices) <= set(range(size))


@given(shape=shapes, seed=st.integers(0, 5))
def test_processes_share_out_each_batch_of_the_single_process(shape: tuple[int, int, int], seed: int) -> None:
    size, share, world = shape
    whole = batches(order(size, seed, share * world, epoch=2))
    parts = [batches(order(size, seed, share * world, epoch=2, rank=rank, world=world)) for rank in range(world)]
    for number, batch in enumerate(whole):
        if batch:
            together = [index for part in parts for index in part[number]]
            assert sorted(together) == sorted(batch)
            assert all(len(part[number]) == share for part in parts)
    assert all(len(part) == len(whole) for part in parts)


@given(shape=shapes)
def test_evaluation_keeps_the_order_and_every_image(shape: tuple[int, int, int]) -> None:
    size, share, world = shape
    assert order(size, None, share).indices().tolist() == list(range(size))
    parts = [order(size, None, share * world, rank=rank, world=world).indices().tolist() for rank in range(world)]
    assert sorted(index for part in parts for index in part) == list(range(size))
    assert all(part == sorted(part) for part in parts)


@given(shape=shapes, training=st.booleans())
def test_length_is_what_iteration_yields(shape: tuple[int, int, int], training: bool) -> None:
    size, share, world = shape
    for rank in range(world):
        sampler = order(size, 0 if training else None, share * world, rank=rank, world=world)
        assert len(sampler) == len(list(sampler))


def test_the_order_depends_on_seed_and_epoch_and_nothing_else() -> None:
    def listed(seed: int, epoch: int) -> list[int]:
        return order(60, seed, 10, epoch=epoch).indices().tolist()

    first = listed(0, 0)
    torch.manual_seed(99)
    assert listed(0, 0) == first
    orders = {tuple(listed(seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert tuple(range(60)) not in orders


def test_the_images_that_fill_no_batch_change_from_epoch_to_epoch() -> None:
    used = [set(order(11, 0, 4, epoch=epoch).indices().tolist()) for epoch in range(20)]
    assert all(len(some) == 8 for some in used)
    assert set.union(*used) == set(range(11))


@given(data=st.data(), padding=st.integers(0, 3), dtype=st.sampled_from([torch.uint8, torch.float32]))
def test_crop_and_flip_equals_torchvisions_pad_crop_and_flip(
    data: st.DataObject, padding: int, dtype: torch.dtype
) -> None:
    n, channels, height, width = data.draw(st.tuples(*[st.integers(1, 5)] * 2, *[st.integers(1, 7)] * 2))
    images = (torch.arange(n * channels * height * width).view(n, channels, height, width) % 251 + 1).to(dtype)
    corners = data.draw(st.lists(st.tuples(*[st.integers(0, 2 * padding)] * 2), min_size=n, max_size=n))
    flips = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    views = crop_and_flip(images, torch.tensor(corners), torch.tensor(flips), padding)
    assert views.dtype == dtype
    for view, image, (top, left), flip in zip(views, images, corners, flips, strict=True):
        naive = tv.pad(image, [padding] * 4)[:, top : top + height, left : left + width]
        assert torch.equal(view, tv.horizontal_flip(naive) if flip else naive)


UNSCALED = Normalisation(mean=(0.0,) * 3, std=(1 / 255,) * 3)


def resident(count: int = 24, side: int = 6) -> ResidentSplit:
    """Random images whose label is their index, under a normalisation that leaves pixel values alone."""
    images = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (count, 3, side, side), dtype=np.uint8))
    return ResidentSplit.whole(images, torch.arange(count), UNSCALED)


def by_index(loader: Loader) -> dict[int, Tensor]:
    return {int(label): image for images, labels in loader for image, label in zip(images, labels, strict=True)}


def load(
    split: Split,
    batch_size: int,
    seed: int | None = 0,
    epoch: int = 0,
    *,
    augmentation: Augmentation | None = CROP_AND_FLIP,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> Loader:
    sampler = order(len(split), seed, batch_size, epoch=epoch, rank=rank, world=world)
    return split.loader(sampler, augmentation, CPU, workers)


def test_a_resident_view_depends_on_neither_batch_size_nor_process() -> None:
    split = resident()
    views = by_index(load(split, 24))
    for batch_size, rank, world in ((4, 0, 1), (12, 0, 2), (12, 1, 2), (24, 2, 3)):
        part = by_index(load(split, batch_size, rank=rank, world=world))
        assert len(part) == 24 // world
        assert all(torch.equal(image, views[index]) for index, image in part.items())


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)])
def test_resident_views_change_with_seed_and_with_epoch(seed: int, epoch: int) -> None:
    first, other = by_index(load(resident(), 8)), by_index(load(resident(), 8, seed, epoch))
    assert sum(torch.equal(first[index], other[index]) for index in first) < 6  # by chance 1 in 50


def test_resident_views_are_crops_of_their_own_image_and_all_of_them_come_up() -> None:
    split = ResidentSplit.whole(resident(1).images.expand(600, -1, -1, -1), torch.arange(600), UNSCALED)
    padded = tv.pad(split.images[0].float(), [2] * 4)
    crops = [padded[:, top : top + 6, left : left + 6] for top in range(5) for left in range(5)]
    possible = torch.stack([*crops, *map(tv.horizontal_flip, crops)])
    seen = torch.stack(list(by_index(load(split, 600)).values()))
    distance = (seen[:, None] - possible).abs().amax((2, 3, 4))
    assert (distance < 1e-3).sum(1).eq(1).all(), "each view is exactly one of the possible ones"
    counts = (distance < 1e-3).sum(0)
    # 12 of each expected; 5 standard deviations of a Poisson count leave no room for a missing or favoured crop.
    assert counts.min() > 0
    assert counts.max() < 12 + 5 * 12**0.5
    assert abs(counts[25:].sum().item() - 300) < 5 * 150**0.5, "half of them are mirrored"


def test_without_augmentation_a_resident_image_is_as_it_is() -> None:
    split = resident()
    for augmentation, seed in ((Augmentation(), 0), (None, 0), (CROP_AND_FLIP, None)):
        views = by_index(load(split, 5, seed, augmentation=augmentation))
        assert all(torch.allclose(image, split.images[index].float()) for index, image in views.items())
    assert len(views) == 24, "evaluation has all images, the last batch is smaller"


def file_split(root: Path, count: int = 10, resolution: int = 8, resize: int = 0) -> FileSplit:
    """Images of many shapes; the label is the index."""
    paths = tuple(root / f"{number}.png" for number in range(count))
    for number, path in enumerate(paths):
        random_image(number, 9 + 3 * number % 17, 9 + 5 * number % 13).save(path)
    return FileSplit(paths, torch.arange(count), DataConfig(dataset="folder", resolution=resolution, resize=resize))


@pytest.mark.parametrize("augmentation", [IMAGENET_CROP, CROP_AND_FLIP], ids=["imagenet", "crop-and-flip"])
def test_a_files_view_depends_on_neither_batch_size_nor_process(tmp_path: Path, augmentation: Augmentation) -> None:
    split = file_split(tmp_path)
    views = by_index(load(split, 10, augmentation=augmentation))
    for batch_size, rank, world in ((5, 0, 1), (2, 0, 2), (10, 1, 2)):
        part = by_index(load(split, batch_size, augmentation=augmentation, rank=rank, world=world))
        assert len(part) == 10 // world
        assert all(torch.equal(image, views[index]) for index, image in part.items())
    for seed, epoch in ((1, 0), (0, 1)):
        other = by_index(load(split, 5, seed, epoch, augmentation=augmentation))
        assert sum(torch.equal(other[index], image) for index, image in views.items()) < 4


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", ["resident", "files"])
def test_a_policy_is_torchvisions_and_keyed_by_image(kind: str, policy: Policy, tmp_path: Path) -> None:
    split = resident(10, 12) if kind == "resident" else file_split(tmp_path, resolution=12)
    alone, more = Augmentation(), Augmentation(policies=(policy,))
    torch.manual_seed(1)
    before, state = by_index(load(split, 10, augmentation=alone)), torch.get_rng_state()
    views = by_index(load(split, 5, augmentation=more))
    assert sum(not torch.equal(views[index], image) for index, image in before.items()) >= 2  # erasing: every second
    for index, image in by_index(load(split, 5, augmentation=more, rank=1, world=5)).items():
        assert torch.equal(image, views[index])
    changed = by_index(load(split, 10, 0, 1, augmentation=more))
    assert any(not torch.equal(changed[index], image) for index, image in views.items())
    if kind == "resident":  # each image by hand, under the seed of its own
        assert isinstance(split, ResidentSplit)
        assert torch.equal(torch.get_rng_state(), state)
        step = {"trivial-augment": TrivialAugmentWide, "rand-augment": RandAugment, "random-erasing": RandomErasing}
        for index, image in views.items():
            torch.manual_seed(stream_seed(0, "policies", 0, index))
            assert torch.equal(image, UNSCALED(step[policy]()(split.images[index])[None])[0])


def mixed(
    split: Split, *mix: Mix, batch_size: int = 5, epoch: int = 0, rank: int = 0, world: int = 1
) -> list[tuple[Tensor, Tensor]]:
    augmentation = Augmentation(mix=mix)
    loader = load(split, batch_size, epoch=epoch, augmentation=augmentation, rank=rank, world=world)
    return list(MixingLoader(loader, augmentation, len(split)))


@pytest.mark.parametrize("kind", ["resident", "files"])
@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_images_and_labels_are_mixed_in_the_same_shares(kind: str, mix: Mix, tmp_path: Path) -> None:
    split = resident(10, 12) if kind == "resident" else file_split(tmp_path, resolution=12)
    whole = list(load(split, 5, augmentation=Augmentation()))
    found = [batch for epoch in range(6) for batch in mixed(split, mix, epoch=epoch)]
    for (images, labels), (views, shares) in zip(whole, found, strict=False):  # those of the first epoch
        assert views.is_contiguous(memory_format=torch.channels_last)
        assert (views.dtype, shares.dtype, shares.shape) == (torch.float32, torch.float32, (5, 10))
        before = images.roll(1, 0)
        own = shares[torch.arange(5), labels]  # labels differ, so each image's share can be read off
        assert torch.allclose(shares[torch.arange(5), labels.roll(1)], 1 - own, atol=1e-6)
        if mix == "mixup":
            assert torch.allclose(views, own[0] * images + (1 - own[0]) * before, atol=1e-5)
        else:
            from_before = (views != images).any(1)  # pixels, of 144; by chance two images have one in common
            assert torch.allclose(from_before.float().mean((1, 2)), 1 - own, atol=1.5 / 144)
            assert torch.equal(torch.where(from_before[:, None], before, images), views)
    drawn = {round(float(shares.max()), 4) for _, shares in found}
    assert len(drawn) >= 8, "each batch of each epoch has a draw of its own"


def test_draws_of_mixing_depend_on_seed_epoch_and_batch_alone() -> None:
    split = resident(12, 6)
    first = mixed(split, "mixup", "cutmix", batch_size=4, epoch=3)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = mixed(split, "mixup", "cutmix", batch_size=4, epoch=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True))
    # Processes of one run draw the same shares.
    halves = [mixed(split, "mixup", batch_size=4, rank=rank, world=2) for rank in (0, 1)]
    for (_, one), (_, two) in zip(*halves, strict=True):
        assert sorted(one[one > 0].tolist()) == pytest.approx(sorted(two[two > 0].tolist()))


def test_of_two_ways_to_mix_each_batch_has_one() -> None:
    split = ResidentSplit.whole(torch.zeros(2, 3, 6, 6, dtype=torch.uint8), torch.arange(2), UNSCALED)
    split.pixels[0] = 200
    kinds = []
    for epoch in range(40):
        ((images, shares),) = mixed(split, "mixup", "cutmix", batch_size=2, epoch=epoch)
        if 0.01 < float(shares.min()) < 0.49:
            pixels = set(images.round().flatten().tolist())  # cut images have those of the two alone
            kinds.append("cutmix" if pixels == {0, 200} else "mixup")
    assert kinds.count("mixup") > 4
    assert kinds.count("cutmix") > 4


@pytest.mark.parametrize("kind", ["resident", "files"])
def test_equal_images_get_views_of_their_own(kind: str, tmp_path: Path) -> None:
    split = (resident() if kind == "resident" else file_split(tmp_path)).take(torch.zeros(8, dtype=torch.int64))
    ((views, _),) = load(split, 8)
    assert len({view.numpy().tobytes() for view in views}) >= 6  # 50 views are possible


@pytest.mark.slow
def test_two_worker_processes_give_the_batches_of_none(tmp_path: Path) -> None:
    split = file_split(tmp_path)
    alone, helped = (order(10, 0, 4) for _ in range(2))
    by_self = split.loader(alone, IMAGENET_CROP, CPU, 0)
    by_workers = split.loader(helped, IMAGENET_CROP, CPU, 2)
    for epoch in range(2):  # the workers live on into the second epoch
        alone.set_epoch(epoch)
        helped.set_epoch(epoch)
        pairs = list(zip(by_self, by_workers, strict=True))
        assert len(pairs) == 2
        for (images, labels), (other_images, other_labels) in pairs:
            assert torch.equal(labels, other_labels)
            assert torch.equal(images, other_images)


@pytest.mark.parametrize("kind", ["resident", "files"])
def test_two_arms_of_one_seed_see_the_same_batches(kind: str, tmp_path: Path) -> None:
    split = resident() if kind == "resident" else file_split(tmp_path)
    torch.manual_seed(1)
    first = list(load(split, 4, 3, 2))
    torch.manual_seed(2)
    torch.rand(100)
    before = torch.get_rng_state()
    second = list(load(split, 4, 3, 2))
    assert len(first) == len(second) == len(split) // 4
    for (images, labels), (other_images, other_labels) in zip(first, second, strict=True):
        assert torch.equal(labels, other_labels)
        assert torch.equal(images, other_images)
    if kind == "resident":
        assert torch.equal(torch.get_rng_state(), before)


@given(shape=shapes, training=st.booleans())
def test_a_resident_loader_yields_as_many_batches_as_its_length_says(
    shape: tuple[int, int, int], training: bool
) -> None:
    size, share, world = shape
    for rank in range(world):
        loader = load(resident(size, 1), share * world, 0 if training else None, rank=rank, world=world)
        assert len(list(loader)) == len(loader)


@pytest.mark.parametrize("held", [1, 3 * 8 * 8 * 12, 1 << 30], ids=["one batch", "three batches", "all"])
def test_batches_are_the_same_however_many_are_gathered_at_once(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    split = resident(30, 8)
    monkeypatch.setattr(loaders, "GATHERED_BYTES", held)
    found = list(load(split, 4, 3, 1, augmentation=CROP_AND_FLIP))
    indices = order(30, 3, 4, epoch=1).indices()
    draws = generator(3, "augment", 1)
    offsets = torch.randint(0, 2 * CROP_AND_FLIP.crop_padding + 1, (30, 2), generator=draws)
    flips = torch.rand(30, generator=draws) < 0.5
    assert len(found) == 7
    for (images, labels), index in zip(found, indices.split(4), strict=True):
        cut = crop_and_flip(split.images[index], offsets[index], flips[index], CROP_AND_FLIP.crop_padding)
        assert torch.equal(images, split.normalisation(cut))
        assert torch.equal(labels, split.labels[index])


@pytest.mark.parametrize("kind", ["resident", "files"])
def test_the_order_is_drawn_when_the_first_batch_is_asked_for(kind: str, tmp_path: Path) -> None:
    split = resident(10) if kind == "resident" else file_split(tmp_path)
    sampler = order(10, 0, 5)
    iterator = iter(split.loader(sampler, CROP_AND_FLIP, CPU, 0))
    sampler.set_epoch(4)
    for (images, labels), (expected, expected_labels) in zip(iterator, load(split, 5, 0, 4), strict=True):
        assert torch.equal(labels, expected_labels)
        assert torch.equal(images, expected)


@pytest.mark.parametrize("kind", ["resident", "files"])
@pytest.mark.parametrize("augmentation", [None, CROP_AND_FLIP], ids=["as-it-is", "augmented"])
def test_batches_are_float32_channels_last_with_int64_labels(
    kind: str, augmentation: Augmentation | None, tmp_path: Path
) -> None:
    split = resident(10, 8) if kind == "resident" else file_split(tmp_path)
    for seed, lengths in ((0, [4, 4]), (None, [8, 2])):  # evaluation takes two batches at once
        loader = load(split, 4, seed, augmentation=augmentation if seed is not None else None)
        assert len(loader) == len(lengths)
        for (images, labels), length in zip(loader, lengths, strict=True):
            assert images.shape == (length, 3, 8, 8)
            assert images.dtype == torch.float32
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert labels.dtype == torch.int64


def test_normalisation_equals_torchvisions() -> None:
    pixels = resident().images
    reference = tv.normalize(tv.to_dtype(pixels, torch.float32, scale=True), IMAGENET_MEAN, IMAGENET_STD)
    assert torch.allclose(IMAGENET_NORMALISATION(pixels), reference, atol=1e-5)


def test_the_training_part_has_mean_0_and_deviation_1() -> None:
    data = load_data(DataConfig(dataset="digits", resolution=8), None)
    sampler = order(len(data.train), None, 64)
    pixels = torch.cat([images for images, _ in data.train.loader(sampler, None, CPU, 0)]).double()
    assert len(pixels) == 929
    assert abs(pixels.mean().item()) < 1e-5
    assert pixels.std(correction=0).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("resize", [0, 11])
def test_an_evaluated_file_is_resized_and_cropped_at_its_centre(resize: int, tmp_path: Path) -> None:
    split = file_split(tmp_path, resize=resize)
    views = by_index(load(split, 4, None, augmentation=None))
    for index, path in enumerate(split.paths):
        image = Image.open(path)
        short = (resize or 8) / min(image.size)
        width, height = (int(side * short) if side != min(image.size) else resize or 8 for side in image.size)
        left, top = round((width - 8) / 2), round((height - 8) / 2)
        expected = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + 8, top + 8))
        pixels = (np.asarray(expected) / 255 - IMAGENET_MEAN) / IMAGENET_STD
        assert np.allclose(views[index].permute(1, 2, 0).numpy(), pixels, atol=1e-5)


def test_the_imagenet_crop_has_the_networks_resolution_and_enlarges_parts(tmp_path: Path) -> None:
    path = tmp_path / "ramp.png"
    Image.fromarray(np.tile(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (64, 1, 3))).save(path)
    split = FileSplit((path,), torch.zeros(1, dtype=torch.int64), file_split(tmp_path).config)
    spans = []
    for epoch in range(40):
        ((images, _),) = load(split, 1, 0, epoch, augmentation=IMAGENET_CROP)
        assert images.shape == (1, 3, 8, 8)
        grey = images[0, 0].mean(0) * 0.229 * 255 / 4  # columns of the ramp, in pixels
        spans.append(((grey[-1] - grey[0]) * 8 / 7).item() / 64)
    # 8 to 100 % of the area at aspects 3/4 to 4/3: sides from sqrt(0.08 * 3/4) to 1 of the whole.
    assert 0.2 < min(map(abs, spans)) < 0.5
    assert 0.8 < max(map(abs, spans)) < 1.05
    assert min(spans) < 0 < max(spans), "some are mirrored"
