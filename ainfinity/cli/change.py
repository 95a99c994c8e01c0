"""The verbs that change a job: approve, reject, cancel, retry, delete."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from ainfinity.cli.output import interactive, say, write, write_json
from ainfinity.cli.session import learn_secrets, with_client
from ainfinity.core.constants import EXIT_OK, EXIT_REFUSED
from ainfinity.core.exceptions import AinfinityError, ApprovalNeeded, UsageError

if TYPE_CHECKING:
    from ainfinity.client.port import Client
    from ainfinity.schema.views import JobRow


def approve_job(job: str, plan_hash: str, *, as_json: bool) -> int:
    """Approve a job's plan."""
    return _change(lambda client: client.approve(job, plan_hash), "Approved {name} ({id}).", as_json=as_json)


def reject_job(job: str, reason: str, *, as_json: bool) -> int:
    """Reject a job that waits for approval."""
    return _change(lambda client: client.reject(job, reason), "Rejected {name} ({id}).", as_json=as_json)


def cancel_jobs(jobs: Sequence[str], *, as_json: bool) -> int:
    """End jobs. Each is tried, whatever becomes of the others; the exit code is that of the first that failed."""

    async def cancel(client: Client, job: str) -> JobRow:
        row = await client.cancel(job)
        over = row.finished_at is not None
        say(f"{row.name} ({row.id}) is cancelled." if over else f"{row.name} ({row.id}) is being cancelled.")
        return row

    return _each(jobs, cancel, as_json=as_json)


def delete_jobs(jobs: Sequence[str], *, yes: bool, as_json: bool) -> int:
    """Remove records of jobs that are over. Errors: ApprovalNeeded where no one can be asked."""
    if not yes:
        names = ", ".join(jobs)
        if not interactive():
            raise ApprovalNeeded(f"Deleting {names} cannot be undone, and no one is here to ask.", hint="Pass --yes.")
        sys.stderr.write(f"Delete the records of {names}? Their files stay. [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say("Nothing was deleted.")
            return EXIT_REFUSED

    async def delete(client: Client, job: str) -> JobRow:
        row = (await client.get_job(job)).job
        await client.delete(row.id)
        say(f"Deleted the record of {row.name} ({row.id}).")
        return row

    return _each(jobs, delete, as_json=as_json)


def retry_job(job: str, changes: Sequence[str], step: int | None, *, as_json: bool) -> int:
    """Queue a finished job again, or with changes a new one like it."""
    if changes and step is not None:
        raise UsageError(
            "--from goes on from a checkpoint, and changes begin anew.", hint="Give one of them.", field="from"
        )
    if not changes:
        return _change(lambda client: client.retry(job, from_step=step), "Queued {name} ({id}) again.", as_json=as_json)

    async def anew(client: Client) -> JobRow:
        from ainfinity.schema.job_file import change_spec

        learn_secrets()
        detail = await client.get_job(job)
        return await client.retry(detail.job.id, spec=change_spec(detail.spec, changes))

    return _change(anew, "Launched {name} ({id}), which begins anew.", as_json=as_json)


def _change(verb: Callable[[Client], Awaitable[JobRow]], done: str, *, as_json: bool) -> int:
    async def body(client: Client) -> JobRow:
        row = await verb(client)
        await client.ensure_worker()
        return row

    row = with_client(body)
    say(done.format(name=row.name, id=row.id))
    if as_json:
        write_json(row)
    else:
        write(row.id)
    return EXIT_OK


def _each(jobs: Sequence[str], verb: Callable[[Client, str], Awaitable[JobRow]], *, as_json: bool) -> int:
    async def body(client: Client) -> tuple[list[JobRow], list[AinfinityError]]:
        rows: list[JobRow] = []
        errors: list[AinfinityError] = []
        for job in jobs:
            try:
                rows.append(await verb(client, job))
            except AinfinityError as error:
                errors.append(error)
        await client.ensure_worker()
        return rows, errors

    rows, errors = with_client(body)
    if as_json:
        write_json({"jobs": rows, "errors": [error.as_dict() for error in errors]})
    if len(errors) == 1 and not as_json:
        raise errors[0]
    for error in errors:
        say(f"Error: {error}")
    return errors[0].exit_code if errors else EXIT_OK
