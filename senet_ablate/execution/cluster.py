"""Runs on other machines: what each asks of its node."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, TypeVar

from pydantic import Field

from senet_ablate.errors import UserError, is_plain
from senet_ablate.execution.machine import ALLOCATOR, Resources, optimisations_on, process_environment
from senet_ablate.spec.protocol import DeviceKind
from senet_ablate.spec.schema import Spec, parse_value, validate
from senet_ablate.training.request import Event, RunRequest

LOADER_CPUS = 3
"""Processor cores per GPU, beside the one that trains, where a call does not say how many; they read images."""


class NodeOptions(Spec):
    """What each run asks of its node, as `--executor-option` says it."""

    gpus: Annotated[float, Field(ge=0, le=1024)] | None = None
    cpus: Annotated[int, Field(ge=1, le=65_536)] | None = None
    memory_gb: Annotated[float, Field(ge=0.001, le=1_000_000)] | None = None


OptionsT = TypeVar("OptionsT", bound=NodeOptions)


def read_options(model: type[OptionsT], pairs: Sequence[str]) -> OptionsT:
    """The `KEY=VALUE` texts of `--executor-option`; a dotted key is an entry of a table (`sbatch.reservation=spring`).

    Raises:
        UserError: an unknown key or a value that does not fit; the message has what would be right.
    """
    raw: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        table, dot, entry = key.partition(".")
        if not (equals and table and text and is_plain(text)) or (dot and not entry):
            raise UserError(f"--executor-option {pair!r}: expected KEY=VALUE; allowed: {', '.join(model.model_fields)}")
        if dot:
            entries = raw.setdefault(table, {})
            if not isinstance(entries, dict):
                raise UserError(f"--executor-option {pair!r}: {table} is given as a single value, too")
            entries[entry] = text
        else:
            field = model.model_fields.get(key)
            # An account may be called 2024, and a time is not TOML's.
            raw[key] = text if field and field.annotation == str | None else parse_value(text)
    return validate(model, raw, "--executor-option")


def node_resources(
    options: NodeOptions, device: str, devices: int, threads: int, without: Collection[str] = ()
) -> Resources:
    """What each run gets on its node; the machine of the driver says nothing about it.

    `auto` is CUDA for runs that are given GPUs, else the processor.

    Raises:
        UserError: device, GPUs, processor cores and threads do not fit each other.
    """
    if device == "mps":
        raise UserError("--device mps: Apple's GPUs are for --executor local; on a cluster cuda or cpu")
    kind: DeviceKind = "cuda" if device == "cuda" or (device == "auto" and options.gpus) else "cpu"
    usual = devices if kind == "cuda" else 0
    gpus = usual if options.gpus is None else options.gpus
    if kind == "cpu" and options.gpus:
        raise UserError(f"--executor-option gpus={options.gpus:g}: these runs are on --device cpu; say --device cuda")
    if kind == "cuda" and not gpus:
        raise UserError("--executor-option gpus=0: --device cuda needs a GPU for each run, or a part of one")
    if kind == "cuda" and gpus != devices and not (devices == 1 and gpus < 1):
        raise UserError(
            f"--executor-option gpus={gpus:g}: a run uses as many GPUs as --devices-per-run says, {devices}"
            + ("; or a part of one, such as 0.5" if devices == 1 else "")
        )
    cpus = options.cpus or devices * (threads + (LOADER_CPUS if kind == "cuda" else 0))
    if cpus < devices * threads:
        raise UserError(
            f"--executor-option cpus={cpus}: --devices-per-run {devices} with --threads {threads} needs "
            f"at least {devices * threads}"
        )
    optimisations = optimisations_on(kind, without)
    environment = process_environment(kind, threads) | ALLOCATOR
    loaders = max(1, cpus // devices - 1) if kind == "cuda" else 0
    return Resources(kind, (environment,), devices, threads, loaders, optimisations, gpus, cpus)


def users_own(environment: Mapping[str, str]) -> dict[str, str]:
    """The same variables, but as the user has set them where that is so."""
    return {name: os.environ.get(name, value) for name, value in environment.items()}


def do(request: RunRequest) -> Event:
    """One run, called on its node. It may be called again after any end: what is finished stays so."""
    if request.folder.record_file.exists():  # the engine lost the run between its last file and its report
        return Event("finished", request)
    from senet_ablate.execution.worker import attempt  # imports torch, which the driver can do without

    return attempt(request)
