"""Write own-images.md: what the commands print for a folder of 720 photos, which is made from CIFAR-10 as files.

python docs/own_images.py FOLDER (with train/ and test/ of CIFAR-10 as image files)
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import ExifTags, Image

CLASSES = ("bird", "cat", "dog", "ship")
SIDES = (32, 48, 64)
PER_CLASS = {"train": 130, "test": 50}
TEXT = """<!-- Written by docs/own_images.py, which makes the folder and runs these commands. -->

# From a folder of photos to an answer

Say you have 720 photos in folders, one per class, in `photos/train/` and `photos/test/`. Those of this page are made
from CIFAR-10 (four classes, three sizes). As in real folders, some files are broken, some are stored sideways (EXIF),
and some are in both parts. With so few photos one starts from a pretrained network: `backbone.pt` has weights of
torchvision's ResNet-18, a state dict. (Here it was trained on {others} photos of CIFAR-10's other six classes, so that
this page needs no download. Without `--weights`, `init` proposes the published weights for fewer than 5,000 photos
whose median side is at least 64 pixels, else a small network with random initial weights.)

## 1. Look at the folder

{init}

`mine.toml` is a protocol. Every key has a comment:

```toml
{protocol}```

If there is no test part, `--split 0.2` draws one and lists it in `splits.csv`; no file is moved. Blocks and classifier
always start from random weights; `backbone_lr` is the learning rate of the pretrained layers.

## 2. See what can be decided

{plan}

## 3. Train and read the answer

To keep it short, this transcript trains {epochs} epochs with two seeds, which is too little for an answer.

{run}
"""


def make_photos(source: Path, root: Path) -> None:
    """Four classes of 180 photos: 5 broken, 24 on their side, 18 of the test part in train, too."""
    for part, count in PER_CLASS.items():
        for name in CLASSES:
            (root / part / name).mkdir(parents=True)
            for number, path in enumerate(sorted((source / part / name).iterdir())[:count]):
                side = SIDES[number % 3]
                with Image.open(path) as photo:
                    image = photo.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
                exif = Image.Exif()
                if part == "train" and number < 6:
                    exif[ExifTags.Base.Orientation] = 6
                    image = image.transpose(Image.Transpose.ROTATE_90)
                image.save(root / part / name / f"{number:03}.jpg", quality=95, exif=exif)
    for name in CLASSES[:3]:
        for number in range(40, 44):
            shutil.copyfile(root / "train" / name / f"{number:03}.jpg", root / "test" / name / f"{number:03}.jpg")
        for number in (44, 45):
            with Image.open(root / "train" / name / f"{number:03}.jpg") as photo:
                photo.save(root / "test" / name / f"{number:03}.png")
            (root / "test" / name / f"{number:03}.jpg").unlink()
    for name in CLASSES[:3]:
        broken = root / "train" / name / "100.jpg"
        broken.write_bytes(broken.read_bytes()[:200])
    for name in CLASSES[2:]:
        (root / "train" / name / "101.jpg").write_bytes(b"")


OTHERS = ("airplane", "automobile", "deer", "frog", "horse", "truck")
PER_OTHER = {"train": 100, "test": 10}
BACKBONE = """name = "others"
description = "the other six classes"
network = { backbone = "torchvision:resnet18" }
data = { dataset = "folder", resolution = 64 }

[recipe]
epochs = 5
batch_size = 32
lr = 0.05
schedule = { kind = "cosine", warmup_epochs = 1 }
augmentation = { horizontal_flip = true }
"""


def make_weights(source: Path, folder: Path) -> None:
    """Train ResNet-18 on the other classes of CIFAR-10 and keep its weights, `backbone.pt`."""
    for part, count in PER_OTHER.items():
        for name in OTHERS:
            place = folder / "others" / part / name
            place.mkdir(parents=True)
            for path in sorted((source / part / name).iterdir())[:count]:
                shutil.copyfile(path, place / path.name)
    (folder / "others.toml").write_text(BACKBONE)
    call = "run gain --protocol others.toml --rows original --seeds 1 --data others --keep-weights"
    transcript(folder, *call.split(), shown=call)
    (weights,) = folder.glob("results/others/plain-*/weights.pt")
    weights.rename(folder / "backbone.pt")
    shutil.rmtree(folder / "results")


def transcript(folder: Path, *words: str, shown: str) -> str:
    """What a command prints, as a terminal shows it."""
    environment = {**os.environ, "COLUMNS": "100", "SENET_ABLATE_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "senet_ablate", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{shown}: {done.stdout}")
    text = re.sub(r"[ \t]+$", "", done.stdout.replace(f"{folder}/", ""), flags=re.M).strip()
    return f"```text\n$ senet-ablate {shown}\n{text}\n```"


def main(source: Path) -> None:
    """Make the folder, run the commands, write the page."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        make_photos(source, folder / "photos")
        make_weights(source, folder)
        call = ("init", "--data", "photos", "--weights", "backbone.pt")
        first = transcript(folder, *call, shown=" ".join(call))
        call = ("plan", "gain", "--protocol", "mine.toml", "--data", "photos")
        plan = transcript(folder, *call, shown=" ".join(call))
        rest = (
            "gain",
            "--protocol",
            "mine.toml",
            "--set",
            "recipe.epochs=3",
            "--set",
            "recipe.schedule.warmup_epochs=1",
        )
        call = ("run", *rest, "--seeds", "2", "--study", "first-look", "--data", "photos", "--report")
        run = transcript(folder, *call, shown=" ".join(call))
        page = TEXT.format(
            init=first,
            protocol=(folder / "mine.toml").read_text(),
            plan=plan,
            run=run,
            epochs="3",
            others=f"{len(OTHERS) * PER_OTHER['train']:,}",
        )
    Path(__file__).with_name("own-images.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
