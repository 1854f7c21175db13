"""Code of the user's that a declaration names, `package.module:name`: found, digested without running it, imported.

Its identity is a digest of the text of its module and of all that this imports from the same folder; of an installed
package, its name and version. Data files and modules found in other folders are not covered. Code is imported only
where a declaration of the caller's names it, never from a record.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.metadata import packages_distributions, version
from modulefinder import ModuleFinder
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

from senet_ablate.errors import UserError
from senet_ablate.spec.backbones import library
from senet_ablate.spec.network import Network, Variant

THIS_PACKAGE = "senet_ablate"
INSTALLED = {"site-packages", "dist-packages"}


def is_users(name: str | None) -> bool:
    """Whether a name of a block or backbone is `package.module:name`, neither ours nor a library's."""
    return name is not None and ":" in name and library(name) is None


def _search_path() -> list[str]:
    """Where modules are looked for: the working directory, then what Python has."""
    here = str(Path.cwd())
    return [here, *(place for place in sys.path if place not in ("", here))]


def _root(name: str, top: str) -> Path:
    """The folder that holds the top-level package or module."""
    found = PathFinder.find_spec(top, _search_path()) or importlib.util.find_spec(top)
    if found is None:
        raise UserError(
            f"{name!r}: there is no module {top!r} in {Path.cwd()} or on PYTHONPATH; call from its folder, or set "
            "PYTHONPATH"
        )
    places = list(found.submodule_search_locations or ())
    if not places and not (found.origin or "").endswith(".py"):
        raise UserError(f"{name!r}: {top!r} is no Python file that could be digested")
    return Path(places[0]).parent if places else Path(found.origin or "").parent


class _OwnModules(ModuleFinder):
    """Follows imports within one folder, or within one package of it, and never into this package."""

    def __init__(self, root: Path, top: str | None) -> None:
        super().__init__(path=[str(root)])
        self.top = top

    def find_module(self, name: str, path: Any, parent: Any = None) -> Any:
        """As the base, which has no types."""
        first = (f"{parent.__name__}.{name}" if parent is not None else name).partition(".")[0]
        if first == THIS_PACKAGE or self.top not in (None, first):
            raise ImportError(name)
        return super().find_module(name, path, parent)


class UserCode:
    """The code that `package.module:name` names, found from its text alone, which is not run.

    Attributes:
        module: to import.
        attribute: in the module.
        installed: the distribution and its version; empty for files that no package manager put there.
        files: those that the module needs, by module; none of an installed package.

    Raises:
        UserError: there is no such module, or its text is no Python.
    """

    def __init__(self, name: str) -> None:
        self.module, _, self.attribute = name.partition(":")
        if not all(part.isidentifier() for part in (*self.module.split("."), *self.attribute.split("."))):
            raise UserError(f"{name!r}: your own code is named package.module:name, for example my_blocks:MyBlock")
        top = self.module.partition(".")[0]
        root = _root(name, top)
        among_installed = bool(INSTALLED & set(root.parts))
        known = packages_distributions().get(top) if among_installed else None
        self.installed = f"{known[0]}=={version(known[0])}" if known else ""
        self.files = {} if known else self._find(name, _OwnModules(root, top if among_installed else None))

    def _find(self, name: str, finder: ModuleFinder) -> dict[str, Path]:
        try:
            finder.import_hook(self.module)
        except ImportError as error:
            raise UserError(f"{name!r}: there is no module {self.module!r} in {finder.path[0]}: {error}") from None
        except (SyntaxError, UnicodeDecodeError, ValueError) as error:
            raise UserError(f"{name!r}: {self.module} is no Python: {error}") from None
        except AttributeError:  # ModuleFinder knows no namespace packages
            raise UserError(f"{name!r}: a folder of {self.module} has no __init__.py; add an empty one") from None
        found = {each: Path(value.__file__) for each, value in finder.modules.items() if value.__file__}  # type: ignore[attr-defined]
        return {each: path for each, path in found.items() if path.suffix == ".py"}

    @property
    def digest(self) -> str:
        """Of the texts of the files, or of the installed version."""
        digest = hashlib.blake2b(self.installed.encode(), digest_size=6)
        for module, path in sorted(self.files.items()):
            text = path.read_bytes()
            digest.update(f"{module}\0{len(text)}\0".encode() + text)
        return digest.hexdigest()


def check_source(name: str, planned: str) -> None:
    """Refuse code that is not what was planned.

    Raises:
        UserError: the files changed since.
    """
    code = UserCode(name)
    if code.digest != planned.partition("-")[0]:
        where = code.installed or f"one of {', '.join(map(str, code.files.values()))}"
        raise UserError(
            f"{name!r}: its code changed since the run was planned ({planned or 'unknown'}, now {code.digest}), in "
            f"{where}; start the command again for runs of their own (of a network: with another --study)"
        )


class _FreshLoader(SourceFileLoader):
    """Compiles the text that was digested; a byte code file beside it may be of another."""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.get_data(self.path), self.path, "exec")


class _Finder(MetaPathFinder):
    """Finds the modules of some files there and nowhere else."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self.files.get(fullname)
        if file is None:
            return None
        within = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=_FreshLoader(fullname, str(file)), submodule_search_locations=within
        )


def import_object(name: str) -> Any:
    """Import what `package.module:name` names, from the files that its digest covers.

    Modules imported here from other text are imported anew.

    Raises:
        UserError: it cannot be imported, or is not there.
    """
    code = UserCode(name)
    module, files, digest = code.module, code.files, code.digest
    if files and getattr(sys.modules.get(module), "__source_digest__", digest) != digest:
        for each in files:
            sys.modules.pop(each, None)
    finder = _Finder(files)
    sys.meta_path.insert(0, finder)
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # whatever the user's file raises
        raise UserError(f"{name!r}: importing {module} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.meta_path.remove(finder)
    if files:
        found.__source_digest__ = digest
    for part in code.attribute.split("."):
        if not hasattr(found, part):
            raise UserError(f"{name!r}: {module} has no {code.attribute!r}")
        found = getattr(found, part)
    return found


SpecT = TypeVar("SpecT", Network, Variant)


def with_source(spec: SpecT) -> SpecT:
    """A network or variant with the digest of the user's code that it names, so that other code is another one.

    Raises:
        UserError: as `UserCode`.
    """
    name = spec.block if isinstance(spec, Variant) else spec.backbone
    digests = [UserCode(name).digest] if name is not None and is_users(name) else []
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
