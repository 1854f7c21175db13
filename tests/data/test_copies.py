"""What is kept of decoded folders, listed and removed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from helpers import image_folder

from senet_ablate.data import folders
from senet_ablate.data.datasets import load_data
from senet_ablate.errors import UserError
from senet_ablate.spec.protocol import DataConfig

CONFIG = DataConfig(dataset="folder", resolution=8)


@pytest.fixture
def cache(call: Callable[..., Result], decode_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    from click.testing import CliRunner

    from senet_ablate.cli.main import main

    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(main, ["cache", *words])


def test_copies_are_listed_with_their_images_and_size_and_removed_by_name(
    cache: Callable[..., Result], decode_cache: Path, tmp_path: Path
) -> None:
    assert cache().stdout == f"0 copies, 0.0 kB, in {decode_cache}\n"
    for name in ("one", "two"):
        load_data(CONFIG, image_folder(tmp_path / name))
    load_data(CONFIG, tmp_path / "one", stream=True)
    folders = sorted(decode_cache.glob("folder-*"))
    told = cache().stdout
    size = sum(file.stat().st_size for file in decode_cache.rglob("*") if file.is_file())
    assert f"3 copies, {size / 1e3:.1f} kB, in {decode_cache}" in told
    for name in ("one", "two", "list of damaged files"):
        assert sum(str(tmp_path / name) in line or name in line.split("  ") for line in told.splitlines()) >= 1
    assert "1 copies removed" in cache("--drop", folders[0].name).stdout
    assert sorted(decode_cache.glob("folder-*")) == folders[1:]
    assert "2 copies removed" in cache("--drop").stdout
    assert list(decode_cache.iterdir()) == []
    notes: list[str] = []
    load_data(CONFIG, tmp_path / "one", announce=notes.append)
    assert "decoding" in notes[0]


def test_nothing_but_copies_is_listed_or_removed(
    cache: Callable[..., Result], decode_cache: Path, tmp_path: Path
) -> None:
    """Somebody may have given a folder in which he has other things, too."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    for name in ("matplotlib", "tmpabcdefgh", "folder-mine", "folder-" + "g" * 32):
        (decode_cache / name).mkdir(parents=True)
    (decode_cache / ("folder-" + "0" * 32)).symlink_to(mine)
    under_way, left = decode_cache / ".decoding-now", decode_cache / ".decoding-then"
    for place in (under_way, left):
        place.mkdir()
        (place / "train-images.npy").write_bytes(b"1234")
    os.utime(left, (0, time.time() - 2 * 86_400))
    assert "1 copies removed, 0.0 kB" in cache("--drop").stdout
    assert not left.exists()
    assert under_way.exists()
    assert len(list(decode_cache.iterdir())) == 6
    assert list(mine.iterdir()) == [mine / "thesis.tex"]


def test_a_name_that_is_none_is_a_mistake(cache: Callable[..., Result], decode_cache: Path, tmp_path: Path) -> None:
    load_data(CONFIG, image_folder(tmp_path / "one"))
    (name,) = (path.name for path in decode_cache.iterdir())
    result = cache(name[:-1], "--drop")
    assert result.exit_code == 2
    assert f"did you mean '{name}'" in result.stderr
    assert (decode_cache / name).exists()


def test_a_cache_that_cannot_be_written_names_the_variable_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SENET_ABLATE_CACHE", str(tmp_path / "file" / "cache"))
    root = image_folder(tmp_path / "one")
    for stream in (False, True):
        with pytest.raises(UserError, match="SENET_ABLATE_CACHE=FOLDER"):
            load_data(CONFIG, root, stream=stream)


def test_a_disk_too_small_for_the_copy_names_the_variable_to_set_and_keeps_nothing(
    tmp_path: Path, decode_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError("8000 requested and 0 written")  # as NumPy says it

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(UserError, match=r"8000 requested and 0 written\); .* SENET_ABLATE_CACHE=FOLDER"):
            load_data(CONFIG, image_folder(tmp_path / "one"))
    assert not list(decode_cache.iterdir())


def test_a_copy_may_be_read_by_others_as_far_as_the_mask_says(tmp_path: Path, decode_cache: Path) -> None:
    before = os.umask(0o027)
    try:
        load_data(CONFIG, image_folder(tmp_path / "one"))
    finally:
        os.umask(before)
    (copy,) = decode_cache.iterdir()
    assert copy.stat().st_mode & 0o777 == 0o750


def test_who_is_slower_takes_the_copy_that_is_there(
    tmp_path: Path, decode_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, decode = image_folder(tmp_path / "one"), folders._decode_part

    def overtaken(*args: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(folders, "_decode_part", decode)
            load_data(CONFIG, root)
        return decode(*args)

    monkeypatch.setattr(folders, "_decode_part", overtaken)
    assert load_data(CONFIG, root).facts.n_test == 4
    assert len(list(decode_cache.iterdir())) == 1
