"""Size, cost and sites of networks as surveyed, kept beside the studies so that plans and reports need no torch.

A survey depends on network, variant and shape of the images alone; it is kept under a digest of these in
`results/.networks/`, where it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from senet_ablate.errors import UserError
from senet_ablate.files import write_atomic
from senet_ablate.results.store import load_note
from senet_ablate.spec.backbones import library
from senet_ablate.spec.cost import added_cost, has_closed_form, total_cost
from senet_ablate.spec.network import Network, Variant
from senet_ablate.spec.protocol import Complexity
from senet_ablate.spec.schema import Spec

FOLDER = ".networks"


@cache
def _code_digest(name: str | None) -> str:
    """Of the code that builds networks: this package's, and the version of a library."""
    digest = hashlib.blake2b(digest_size=8)
    package = Path(__file__).parents[1]
    for path in sorted((*package.glob("blocks/*.py"), *package.glob("models/*.py"))):
        digest.update(path.read_bytes())
    if name is not None:
        with suppress(PackageNotFoundError):
            digest.update(version(name).encode())
    return digest.hexdigest()


class SiteShape(Spec):
    """One block: its name SE_stage_index, its stage, and the map that it sees, C channels of `size` squared."""

    name: str
    stage: int
    channels: int
    size: int


class Survey(Spec):
    """What a network has and costs: the whole, what the blocks add, and where they are."""

    total: Complexity
    added: Complexity
    sites: tuple[SiteShape, ...] = ()


@dataclass(frozen=True)
class Difference:
    """One thing in which a variant differs outside of its blocks, or a block from its declaration.

    `aspect` is one of modules, weights, blocks, outputs, gradients, buffers, random draws; `here` and `plain` are the
    values of `what` in the variant and in the network without SE.
    """

    aspect: str
    what: str
    here: object
    plain: object


@dataclass(frozen=True)
class NetworkDiff:
    """A variant's network beside the one without SE: its blocks in words, and whatever its row does not declare."""

    summary: str
    undeclared: tuple[Difference, ...] = ()


class Networks:
    """The surveys beside the studies of a folder of results."""

    def __init__(self, results: Path) -> None:
        self.folder = results / FOLDER

    def _file(self, network: Network, variant: Variant, shape: tuple[int, int, int]) -> Path:
        what = [each.model_dump(mode="json", exclude_defaults=True) for each in (network.identity, variant)]
        code = _code_digest(library(network.backbone))
        digest = hashlib.blake2b(json.dumps([what, shape, code], sort_keys=True).encode(), digest_size=8).hexdigest()
        return self.folder / f"{digest}.json"

    def find(self, network: Network, variant: Variant, shape: tuple[int, int, int]) -> Survey | None:
        """The survey of a variant for `shape` (channels of the images, classes, resolution).

        Table 1's networks with SE have closed forms; of any other one must be kept, or it is None.
        """
        if has_closed_form(network, variant):
            channels, classes, resolution = shape
            total = total_cost(network, variant, in_channels=channels, classes=classes, resolution=resolution)
            return Survey(total=total, added=added_cost(network, variant, resolution))
        return load_note(Survey, self._file(network, variant, shape), self.folder.parent)

    def cost(self, network: Network, variant: Variant, shape: tuple[int, int, int]) -> Complexity:
        """Size and cost of a variant that was surveyed.

        Raises:
            UserError: it was not.
        """
        found = self.find(network, variant, shape)
        if found is None:
            raise UserError(
                f"{variant.slug} on {network.backbone}: its size and cost are not known yet; `senet-ablate plan` or "
                "`run` builds the network and keeps them"
            )
        return found.total

    def keep(self, network: Network, variant: Variant, shape: tuple[int, int, int], found: Survey) -> None:
        """Keep a survey; a folder that cannot be written to costs the next command a second, nothing else."""
        with suppress(OSError):
            write_atomic(self._file(network, variant, shape), found.model_dump_json(), inside=self.folder.parent)
