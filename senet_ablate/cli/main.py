"""The command line: the group of all commands, its exit codes, and how errors are printed."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from senet_ablate.cli.cache import cache
from senet_ablate.cli.check import audit, calibrate, count, latency, try_command
from senet_ablate.cli.console import tell
from senet_ablate.cli.init import init
from senet_ablate.cli.inspect import excitation, prune
from senet_ablate.cli.options import INTERRUPTED
from senet_ablate.cli.results import merge, report, summary, verify
from senet_ablate.cli.run import list_command, plan, run, status
from senet_ablate.cli.show import show
from senet_ablate.environment import other_checkout
from senet_ablate.errors import UserError

EPILOG = """
Exit codes: 0 success; 1 a run failed (audit, calibrate, try, verify: the check failed; merge: a run differs or was
refused); 2 a mistake in the call, a file or the data; 130 stopped by Ctrl-C or SIGTERM (finished runs are kept, and the
same command continues).

Completion in bash (or zsh, fish): eval "$(_SENET_ABLATE_COMPLETE=bash_source senet-ablate)"
"""


class Shell(click.Group):
    """Prints a mistake of the user, or of the file system, as one message without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit 2 on a mistake of the user."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal without ± still gets its table
        if there := other_checkout():
            tell(f"caution: this runs the code in {there}, not that of this folder; `make` runs this folder's")
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

    A table compares variants that differ in one factor, under one protocol (network, data, recipe). Each distinct
    variant is trained once per seed, however many tables show it. The paper's tables are ratio, squeeze, gate, stage,
    integration, inner and nosqueeze; a command without a table means these seven. Ours are attention, controls, gain,
    length, pruning, ratio-per-stage and start.

    \b
    senet-ablate init --data FOLDER     examine your own images and write a protocol for them
    senet-ablate list                   list tables, rows and protocols
    senet-ablate plan --budget 2h       show which findings two hours can decide
    senet-ablate run ratio --report     train or continue; write table, figure and verdicts
    senet-ablate summary STUDY STUDY    compare the SE gain of several studies
    senet-ablate show se-r16-s0         show one run: its result, or why it failed
    senet-ablate audit                  check that variants differ only as declared
    senet-ablate count                  count parameters and multiply-adds, beside the paper's
    senet-ablate excitation gate:tanh   plot the gates of a trained network (Figures 6 and 7)
    senet-ablate prune ratio:r16        show the error with the SE blocks of each stage switched off
    senet-ablate try my_blocks:MyBlock  check your own block and count its cost
    senet-ablate cache                  list the stored copies of decoded images
    """


for command in (
    init,
    list_command,
    plan,
    run,
    status,
    show,
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
    try_command,
    cache,
):
    main.add_command(command)
