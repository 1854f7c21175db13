"""Runs as arrays of Slurm jobs, through submitit (extra `slurm`).

submitit puts a job back into the queue when its time is over or it is pre-empted; the run goes on from its checkpoint.
That a job ended is seen by its result file, or else by its absence from Slurm's queue: accounting need not be set up.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from senet_ablate.errors import UserError, not_installed
from senet_ablate.execution import executor
from senet_ablate.execution.cluster import NodeOptions, do
from senet_ablate.execution.executor import TRIES, Executor, checkpoint_mark, failed
from senet_ablate.execution.machine import Resources
from senet_ablate.files import refuse_links
from senet_ablate.training.request import Event, RunRequest

LOOK_S = 1.0
"""How often the folder of results is looked at."""

QUEUE_S = 15.0
"""How often Slurm is asked for the state of the jobs."""

GRACE_S = 45.0
"""How long a result may take to appear on a shared file system after its job has left the queue."""

SILENCE_S = 600.0
"""How long Slurm may leave the question for the jobs' state unanswered."""

ARRAY = 1000
"""Jobs of one array; Slurm takes 1001 where its administrator did not set another limit."""

REQUEUES = 10_000
"""How often the time limit may send a job back; what ends it is that it gets no further (`Resumed.checkpoint`)."""

OVER = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}
"""States that a job does not leave. One that waits to be requeued is pending."""


WILL_NOT_BEGIN = {"BadConstraints", "JobHoldMaxRequeue"}
"""Reasons of a pending job that nothing will change by itself; beside those that say it is held."""


class SlurmOptions(NodeOptions):
    """Of `--executor-option`: where the jobs go, what each run gets, and `sbatch.NAME` for any other long option."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: Annotated[int, Field(ge=0, le=1024)] | None = None
    minutes: Annotated[int, Field(ge=5, le=525_600)] = 240  # a year
    sbatch: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")], str] = Field(default_factory=dict)


class Resumed:
    """One run as a job. `checkpoint` is submitit's hook, called when the job is to end before the run does."""

    def __init__(self, fruitless: int = 0) -> None:
        self.fruitless = fruitless

    def __call__(self, request: RunRequest) -> Event:
        """Do the run, or go on with it."""
        self.mark = checkpoint_mark(request)
        return do(request)

    def checkpoint(self, request: RunRequest) -> Any:
        """What to put into the queue instead: the same run, for its checkpoint is in its folder.

        Raises:
            UserError: no epoch fits into the time of a job.
        """
        from submitit.helpers import DelayedSubmission

        fruitless = self.fruitless + 1 if checkpoint_mark(request) == self.mark else 0
        if fruitless >= TRIES:
            raise UserError(
                f"its Slurm job ended {fruitless} times before an epoch did; give it more time with "
                "--executor-option minutes=…"
            )
        return DelayedSubmission(Resumed(fruitless), request)


def slurm_executor(
    options: SlurmOptions, resources: Resources, jobs: int | None, say: Callable[[str], None]
) -> Executor:
    """The executor that hands runs to Slurm as arrays of jobs, of which `jobs` are at work at a time.

    Raises:
        UserError: submitit or Slurm's commands are not there.
    """
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UserError("--executor slurm: submitit is " + not_installed("slurm")) from None
    for command in ("sbatch", "srun", "squeue", "scancel"):
        if shutil.which(command) is None:
            raise UserError(f"--executor slurm: no {command} on this machine; call this where jobs are submitted")
    return Executor(lambda requests: SlurmQueue(requests[0].folder.path.parent, options, resources, jobs, say))


class SlurmQueue:
    """The jobs of one study in Slurm's queue."""

    def __init__(
        self, study: Path, options: SlurmOptions, resources: Resources, jobs: int | None, say: Callable[[str], None]
    ) -> None:
        self._say, self._at_once = say, jobs
        # One name per results folder, whoever submits: so a later call finds the jobs of one that was killed.
        digest = hashlib.blake2b(str(study).encode(), digest_size=4).hexdigest()
        self._name = f"senet-ablate.{re.sub('[^A-Za-z0-9_-]', '_', study.name)}.{digest}"
        self._folder = study / ".slurm" / uuid.uuid4().hex[:8]
        given = options.model_dump(include={"partition", "account", "qos", "constraint"}) | {
            "gpus_per_node": int(resources.gpus) or None,
            "mem": f"{round(options.memory_gb * 1024)}MB" if options.memory_gb else None,
        }
        self._parameters = {
            "job_name": self._name,
            "time": options.minutes,
            "cpus_per_task": resources.cpus,
            # What the user has set is in the job's environment and stays. srun does not take the cores from sbatch.
            "setup": [f'export {name}="${{{name}:-{value}}}"' for name, value in resources.environments[0].items()]
            + [f"export SRUN_CPUS_PER_TASK={resources.cpus}"],
            "additional_parameters": {name.replace("-", "_"): text for name, text in options.sbatch.items()},
        } | {name: value for name, value in given.items() if value is not None}
        self._jobs: dict[str, tuple[Any, RunRequest]] = {}
        self._missing: dict[str, float] = {}
        self._answered = time.monotonic()
        self._look = self._ask = 0.0
        self._all_well = True

    def open(self) -> Iterator[None]:
        """Wait until jobs of an earlier call, which was killed, have left the queue: they do the same runs."""
        told = False
        while left := [job for job, (state, _) in (self._states() or {}).items() if state not in OVER]:
            if not told:
                self._say(
                    f"{len(left)} jobs of an earlier call are still in the queue; waiting for them "
                    f"(to end them: scancel --name={shlex.quote(self._name)})"
                )
                told = True
            for _ in range(max(1, round(QUEUE_S / executor.TICK_S))):
                time.sleep(executor.TICK_S)
                yield None

    def submit(self, requests: Sequence[RunRequest]) -> None:
        """One array, or several if there are very many runs."""
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        refuse_links(self._folder, self._folder.parents[1])
        self._folder.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(requests), ARRAY):
            part = requests[start : start + ARRAY]
            arrays = submitit.SlurmExecutor(self._folder, max_num_timeout=REQUEUES)
            arrays.update_parameters(**self._parameters, array_parallelism=self._at_once or len(part))
            try:
                jobs = arrays.map_array(Resumed(), part)
            except (FailedJobError, FailedSubmissionError, OSError) as error:
                raise UserError(f"--executor slurm: Slurm refuses the jobs: {error}") from None
            self._jobs |= {job.job_id: (job, request) for job, request in zip(jobs, part, strict=True)}
        self._ask = time.monotonic() + QUEUE_S

    def ended(self) -> Iterable[Event]:
        """Jobs with a result file; and those that are not in the queue any more, or never will be at work."""
        time.sleep(executor.TICK_S)
        now = time.monotonic()
        if now >= self._look:
            self._look = now + LOOK_S
            names = set(os.listdir(self._folder))
            for job_id, (job, request) in list(self._jobs.items()):
                if job.paths.result_pickle.name in names:
                    del self._jobs[job_id]
                    yield self._result(job, request)
        if now >= self._ask:
            self._ask = now + QUEUE_S
            yield from self._lost(self._states())

    def close(self) -> None:
        """Cancel what is open; the files of jobs stay only if one failed, for their logs."""
        self._cancel(self._jobs)
        if self._all_well:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _result(self, job: Any, request: RunRequest) -> Event:
        try:
            event: Event = job.result()
        except Exception as error:  # not from the run, which tells by its event: the package is missing there
            trace = str(error).rsplit("\n-----", 1)[0].strip()
            event = failed(request, f"in its Slurm job: {trace.splitlines()[-1]}", f"{trace}\n{job.paths.stderr}")
        self._all_well &= event.kind == "finished"
        return event

    def _lost(self, states: dict[str, tuple[str, str]] | None) -> Iterable[Event]:
        now = time.monotonic()
        if states is None:
            if now - self._answered > SILENCE_S:
                raise UserError(
                    f"Slurm has not answered squeue for {SILENCE_S / 60:.0f} minutes; its jobs may go on, and the same "
                    "command continues"
                )
            return
        self._answered = now
        for job_id, (_, request) in list(self._jobs.items()):
            state, reason = states.get(job_id, ("gone from the queue", ""))
            # One that its user holds will be released by its user.
            stuck = ("held" in reason.lower() and reason != "JobHeldUser") or reason in WILL_NOT_BEGIN
            held = state == "PENDING" and stuck
            if not (state in OVER or job_id not in states or held or request.folder.record_file.exists()):
                self._missing.pop(job_id, None)
                continue
            if now - self._missing.setdefault(job_id, now) < GRACE_S:
                continue
            self._cancel([job_id])  # held, or it does not end though its run is finished
            del self._jobs[job_id]
            cause = f"its Slurm job {job_id} is {state}" + (f" ({reason})" if reason not in ("", "None") else "")
            done = request.folder.record_file.exists()
            self._all_well &= done
            yield failed(request, cause) if state == "CANCELLED" and not done else Event("lost", request, cause)

    def _states(self) -> dict[str, tuple[str, str]] | None:
        """State and reason of each job that Slurm knows, those that ended lately among them; None without an answer."""
        command = ["squeue", "--noheader", "--array", "--states=all", f"--name={self._name}", "--format=%i|%T|%r"]
        try:
            told = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout.decode(errors="replace")
        except (subprocess.SubprocessError, OSError):
            return None
        rows = [line.strip().split("|", 2) for line in told.splitlines()]
        return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}

    def _cancel(self, job_ids: Iterable[str]) -> None:
        """A whole array goes by one number, so that hundreds of jobs make one short command."""
        numbers = sorted(job_ids)
        if len(numbers) > 1:
            numbers = sorted({number.partition("_")[0] for number in numbers})
        if numbers:
            subprocess.run(["scancel", *numbers], capture_output=True, timeout=60, check=False)
