"""Code of the user's that a declaration names, `package.module:name`: found, digested without running it, imported.

Installed packages are known by their names; the user's own files by a digest of their text and of what they import
from their own package. Code is imported only where a declaration of the caller's names it, never from a record.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from importlib.machinery import PathFinder
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any, TypeVar

from senet_ablate.errors import UserError
from senet_ablate.spec.backbones import library
from senet_ablate.spec.network import Network, Variant


def _search_path() -> list[str]:
    """Where modules are looked for: the working directory, then what Python has."""
    here = str(Path.cwd())
    return [here, *(place for place in sys.path if place not in ("", here))]


def _split(name: str) -> tuple[str, str]:
    module, _, attribute = name.partition(":")
    if (
        not module
        or not attribute
        or not all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))
    ):
        raise UserError(f"{name!r}: your own code is named package.module:name, for example my_blocks:MyBlock")
    return module, attribute


def _root(name: str, module: str) -> Path:
    """The folder that holds the top-level package or module."""
    found = PathFinder.find_spec(module.partition(".")[0], _search_path())
    if found is None or (found.origin is None and not found.submodule_search_locations):
        raise UserError(
            f"{name!r}: there is no module {module.partition('.')[0]!r} in {Path.cwd()} or on PYTHONPATH; call from "
            "its folder, or set PYTHONPATH"
        )
    places = list(found.submodule_search_locations or ())
    return Path(places[0]).parent if places else Path(found.origin or "").parent


def source_files(name: str) -> dict[str, Path]:
    """The user's own files that `name` needs, by module, from the text alone; none for an installed package.

    Raises:
        UserError: there is no such module, or its text is no Python.
    """
    module, _ = _split(name)
    root = _root(name, module)
    if {"site-packages", "dist-packages"} & set(root.parts):
        return {}
    finder = ModuleFinder(path=[str(root)])  # nothing outside of its folder is followed
    try:
        finder.import_hook(module)
    except ImportError as error:
        raise UserError(f"{name!r}: there is no module {module!r} in {root}: {error}") from None
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{name!r}: {module} is no Python: {error}") from None
    return {name: Path(each.__file__) for name, each in finder.modules.items() if each.__file__}  # type: ignore[attr-defined]


def source_digest(name: str) -> str:
    """Digest of the user's own code behind `name`; empty for an installed package.

    Raises:
        UserError: as `source_files`.
    """
    files = source_files(name)
    if not files:
        return ""
    digest = hashlib.blake2b(digest_size=6)
    for module, path in sorted(files.items()):
        text = path.read_bytes()
        digest.update(f"{module}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def check_source(name: str, planned: str) -> None:
    """Refuse code that is not what was planned.

    Raises:
        UserError: the files changed since.
    """
    now = source_digest(name)
    if now != planned.partition("-")[0]:
        files = ", ".join(str(path) for path in source_files(name).values())
        raise UserError(
            f"{name!r}: its code changed since the run was planned ({planned or 'an installed package'}, now {now}), "
            f"in one of {files}; start the command again, and it gets runs of its own"
        )


def import_object(name: str) -> Any:
    """Import what `package.module:name` names.

    Raises:
        UserError: it cannot be imported, or is not there.
    """
    module, attribute = _split(name)
    _root(name, module)  # a readable message for what is not there
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever the user's file raises
        raise UserError(f"{name!r}: importing {module} failed: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UserError(f"{name!r}: {module} has no {attribute!r}")
        found = getattr(found, part)
    return found


SpecT = TypeVar("SpecT", Network, Variant)


def with_source(spec: SpecT) -> SpecT:
    """A network or variant with the digest of the user's code that it names, so that other code is another one.

    Raises:
        UserError: as `source_files`.
    """
    name = spec.block if isinstance(spec, Variant) else spec.backbone
    digests = [source_digest(name)] if name and ":" in name and not library(name) else []
    if isinstance(spec, Network) and isinstance(spec.pretrained, str):
        digests.append(weights_digest(spec))
    return spec.model_copy(update={"source": "-".join(digests)}) if any(digests) and not spec.source else spec


def weights_digest(network: Network) -> str:
    """Digest of the file of pretrained weights.

    Raises:
        UserError: it cannot be read.
    """
    path = Path(str(network.pretrained))
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=6)).hexdigest()
    except OSError as error:
        raise UserError(f"network.pretrained = {network.pretrained!r}: cannot be read: {error.strerror}") from None


def check_weights(network: Network) -> None:
    """Refuse a file of weights that is not the one planned.

    Raises:
        UserError: it changed since.
    """
    planned, now = network.source.rpartition("-")[2], weights_digest(network)
    if planned != now:
        raise UserError(
            f"network.pretrained = {network.pretrained!r}: the file changed since the run was planned ({planned}, now "
            f"{now}); start the command again"
        )
