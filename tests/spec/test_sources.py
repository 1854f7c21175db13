"""The user's code behind an import string: found and digested from its text, never run, refused once it changed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
from pathlib import Path

import pytest
import torch

from senet_ablate.errors import UserError
from senet_ablate.models.build import build_network
from senet_ablate.spec.network import Network, Variant
from senet_ablate.spec.sources import UserCode, check_source, import_object, with_source

BLOCK = """
from pathlib import Path

import torch
from torch import nn

from .parts.gate import gate

Path("executed").touch()


class Half(nn.Module):
    def __init__(self, channels, factor=0.5):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return gate(x) * self.factor
"""
FILES = {
    "__init__.py": "",
    "blocks.py": BLOCK,
    "parts/__init__.py": "",
    "parts/gate.py": "def gate(x):\n    return x\n",
    "unused.py": "raise RuntimeError('nobody imports this')\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the user's in the working directory, which leaves a file there when it is imported."""
    name = f"mine_{abs(hash(tmp_path)) % 10**9}"  # a name of its own: Python keeps imported modules
    for file, text in FILES.items():
        path = tmp_path / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    return tmp_path / name


def block_of(package: Path) -> str:
    return f"{package.name}.blocks:Half"


def test_the_digest_covers_what_the_module_imports_of_its_own_folder_and_no_more(package: Path) -> None:
    files = UserCode(block_of(package)).files
    names = ("__init__.py", "blocks.py", "parts/__init__.py", "parts/gate.py")
    assert {path.resolve() for path in files.values()} == {package / name for name in names}
    assert set(files) == {f"{package.name}{part}" for part in ("", ".blocks", ".parts", ".parts.gate")}


def test_nothing_is_executed_to_find_or_to_digest(package: Path) -> None:
    before = set(sys.modules)
    assert UserCode(block_of(package)).digest
    assert with_source(Variant(block=block_of(package))).source == UserCode(block_of(package)).digest
    check_source(block_of(package), UserCode(block_of(package)).digest)
    assert not Path("executed").exists()
    assert not {name for name in set(sys.modules) - before if name.startswith(package.name)}
    assert import_object(block_of(package)).__name__ == "Half"
    assert Path("executed").exists(), "the module would have told"


@pytest.mark.parametrize("file", ["__init__.py", "blocks.py", "parts/__init__.py", "parts/gate.py"])
def test_another_text_is_another_digest_another_variant_and_another_run(package: Path, file: str) -> None:
    before = with_source(Variant(block=block_of(package)))
    (package / file).write_text(FILES[file] + "# another line\n")
    after = with_source(Variant(block=block_of(package)))
    assert before != after
    assert before.slug != after.slug
    (package / file).write_text(FILES[file])
    assert with_source(Variant(block=block_of(package))) == before


def test_what_the_module_does_not_import_changes_nothing(package: Path) -> None:
    before = UserCode(block_of(package)).digest
    (package / "unused.py").write_text("x = 1\n")
    (package / "notes.txt").write_text("x")
    assert UserCode(block_of(package)).digest == before


def test_a_change_since_the_plan_is_refused_by_name_before_it_is_imported(package: Path) -> None:
    planned = with_source(Variant(block=block_of(package)))
    (package / "parts" / "gate.py").write_text("def gate(x):\n    return 2 * x\n")
    network = Network(backbone="resnet14", width=16, stem="small")
    with pytest.raises(UserError, match=r"its code changed since the run was planned.*gate\.py") as caught:
        build_network(network, planned, in_channels=1, classes=10, resolution=8)
    assert block_of(package) in str(caught.value)
    assert planned.source in str(caught.value)
    assert not Path("executed").exists()


def test_a_planned_block_is_built_with_its_settings(package: Path) -> None:
    network = Network(backbone="resnet14", width=16, stem="small")
    task = {"in_channels": 1, "classes": 10, "resolution": 8, "seed": 0}
    images = torch.randn(2, 1, 8, 8)
    whole, half, constant, plain = (
        build_network(network, with_source(variant), **task).eval()(images)
        for variant in (
            Variant(block=block_of(package), settings={"factor": 1.0}),
            Variant(block=block_of(package)),
            Variant(block="constant", settings={"factor": 0.5}),
            Variant(),
        )
    )
    assert torch.equal(whole, plain)
    assert torch.equal(half, constant)
    assert not torch.equal(half, plain)


@pytest.mark.parametrize("name", ["torch.nn:Identity", "torchvision.ops:SqueezeExcitation", "timm.layers:EcaModule"])
def test_installed_packages_are_known_by_name_and_version(name: str) -> None:
    package = name.partition(".")[0]
    known = hashlib.blake2b(f"{package}=={importlib.metadata.version(package)}".encode(), digest_size=6).hexdigest()
    assert UserCode(name).files == {}
    assert with_source(Variant(block=name)) == Variant(block=name, source=known)


def test_names_of_ours_and_of_a_library_have_no_source() -> None:
    for network in (Network(backbone="resnet14"), Network(backbone="timm:resnet18")):
        assert with_source(network) == network
    assert with_source(Variant(block="cbam")) == Variant(block="cbam")


def test_a_single_file_is_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one_file.py").write_text("import helper_of_one\n\nclass Block:\n    pass\n")
    (tmp_path / "helper_of_one.py").write_text("x = 1\n")
    assert set(UserCode("one_file:Block").files) == {"one_file", "helper_of_one"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere_at_all:Block", r"there is no module 'nowhere_at_all' in .* or on PYTHONPATH"),
        ("mine.blocks", "your own code is named package.module:name, for example my_blocks:MyBlock"),
        ("mine-1.blocks:A", "your own code is named package.module:name"),
        (":Block", "your own code is named package.module:name"),
        ("{package}.missing:Block", r"there is no module '.*\.missing'"),
        ("{package}.broken:Block", r"\.broken is no Python"),
    ],
)
def test_code_that_is_not_there_or_is_none_is_told(package: Path, name: str, words: str) -> None:
    (package / "broken.py").write_text("def f(:\n")
    with pytest.raises(UserError, match=words):
        UserCode(name.format(package=package.name))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("{package}.blocks:Third", r"blocks has no 'Third'"),
        ("{package}.unused:Block", r"importing .*\.unused failed: RuntimeError: nobody imports this"),
    ],
)
def test_code_that_cannot_be_imported_is_told(package: Path, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        import_object(name.format(package=package.name))
