"""The command line: the group of all commands, its exit codes, and how a mistake is told."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from senet_ablate.cli.check import audit, calibrate, count, latency
from senet_ablate.cli.console import tell
from senet_ablate.cli.inspect import excitation, prune
from senet_ablate.cli.options import INTERRUPTED
from senet_ablate.cli.results import merge, report, summary, verify
from senet_ablate.cli.run import list_command, plan, run, status
from senet_ablate.errors import UserError

EPILOG = """
Exit codes: 0 done; 1 at least one run failed (audit, calibrate, verify: what was checked does not hold; merge: a run
came out differently or was refused); 2 a mistake in the call, a file or the data; 130 stopped by Ctrl-C or
SIGTERM (nothing finished is lost: the same command goes on).
"""


class Shell(click.Group):
    """Prints a mistake, or what the file system refuses, as one message without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit 2 on a mistake of the user."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal without ± still gets its table
        try:
            return super().invoke(ctx)
        except (UserError, OSError) as error:
            tell(f"error: {error}")
            sys.exit(2)
        except (MemoryError, RuntimeError) as error:  # torch has no type of its own for it on the processor
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            tell(f"error: not enough memory for this network, resolution or batch: {str(error).partition(chr(10))[0]}")
            sys.exit(2)
        except KeyboardInterrupt:
            tell("stopped")
            sys.exit(INTERRUPTED)


@click.group(
    cls=Shell, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EPILOG
)
@click.version_option(package_name="senet-ablate")
def main() -> None:
    """Rerun the ablation study of "Squeeze-and-Excitation Networks" (arXiv 1709.01507, Tables 10 to 16).

    A table's rows differ in one factor while a protocol (network, data, recipe) is held fixed. Each distinct
    network is trained once per seed, whatever number of tables it serves. Tables are called ratio, squeeze,
    gate, stage, integration, inner and nosqueeze (no table means these seven), controls, pruning and
    attention.

    \b
    senet-ablate list                   what there is
    senet-ablate plan --budget 2h       which findings two hours can decide, with how many seeds of what
    senet-ablate run ratio --report     train (or go on); write table, plot and verdicts
    senet-ablate summary digits cifar10 the SE gain of several studies in one forest plot
    senet-ablate audit                  what differs between the arms, and whether it is declared
    senet-ablate count                  parameters and multiply-adds beside the paper's
    senet-ablate excitation gate:tanh   what the SE blocks of a trained network do (Figures 6 and 7)
    senet-ablate prune ratio:r16        its error with the SE blocks of each stage switched off
    """  # noqa: D301 - click wants the character itself


for command in (
    list_command,
    plan,
    run,
    status,
    report,
    summary,
    audit,
    count,
    latency,
    excitation,
    prune,
    merge,
    verify,
    calibrate,
):
    main.add_command(command)
