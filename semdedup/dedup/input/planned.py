"""How much tasks hold as an earlier run has decided, and whether the workers of now have memory for it."""

from __future__ import annotations

from semdedup.dedup import sizes
from semdedup.dedup.sizes import TaskRows
from semdedup.runs.run import Run
from semdedup.storage.location import Location

MIB = 1 << 20
HELD = "tasks_hold"
"""What it is called on disk."""

MADE_ONCE = "convert-to-Parquet"
"""The journal of what does not depend on how rows are cut into tasks."""


def fits(run: Run, n_bytes: int) -> bool:
    """Whether tasks that hold so many bytes of rows, as an earlier run has decided, can run here.

    Where workers have less memory now they would die of it, each time that the run goes on. Then that is said, and what
    was done so far is forgotten, so that the caller decides anew.
    """
    most = sizes.most_of_rows(run.session.task_memory, run.session.device_memory)
    if n_bytes <= most:
        return True
    run.session.reporter.say(
        f"an earlier run cut the work into tasks that hold up to {n_bytes / MIB:.0f} MiB of rows; workers have less "
        f"memory now: it is cut again, into tasks of up to {most / MIB:.0f} MiB, and begins anew"
    )
    forget_tasks(run)
    return False


def forget_tasks(run: Run) -> None:
    """Forget what was done by a plan that does not hold any more."""
    journal = run.scratch / "journal"
    for name in journal.folder_names() if journal.is_dir() else ():
        if name != MADE_ONCE:
            run.forget(name)


def planned_bytes(run: Run, place: Location, *wanted: int) -> list[int]:
    """Bytes that tasks of some kinds hold: as decided by the first of the runs that go on with each other, else these.

    Args:
        run: the run, whose journal is forgotten where what is noted does not hold any more.
        place: where that is noted.
        wanted: what this run would decide.
    """
    noted = place.read_json() if place.exists() else {}
    before: list[int] | None = noted.get(HELD)
    if before is not None and fits(run, max(before)):
        return before
    if noted and before is None:  # of a version that cut rows by another rule
        forget_tasks(run)
    place.write_json({HELD: wanted}, forced=True)
    return list(wanted)


def planned_on_device(run: Run, place: Location, rows: TaskRows, dim: int, other_bytes: float) -> TaskRows:
    """The same as `rows`, with clusters uncut as far as GPUs hold them; as decided by the first of the runs that go on
    with each other. What was done for GPUs that hold more, or for none, is forgotten.

    Args:
        run: the run.
        place: where that is noted.
        rows: what tasks are given that hold rows in memory of the host, `planned_rows`.
        dim, other_bytes: of a row.
    """
    memory = run.session.device_memory
    if memory is None and not place.exists():
        return rows
    before = place.read_json()[HELD] if place.exists() else None
    uncut = 0 if memory is None else sizes.uncut_on_device(memory)
    if before is None or not (bool(before) == bool(uncut) and before <= uncut):
        forget_tasks(run)
        before = uncut
        place.write_json({HELD: before}, forced=True)
    return sizes.rows_on_device(before, dim, rows, other_bytes) if before else rows


def planned_rows(run: Run, place: Location, total_bytes: int, dim: int, other_bytes: float) -> TaskRows:
    """Rows of clusters that tasks are given, see `planned_bytes`.

    Args:
        run: the run.
        place: where that is noted.
        total_bytes: of all rows, see `sizes.held_bytes`.
        dim, other_bytes: of a row.
    """
    machines = run.session.n_slots, run.session.task_memory
    uncut, fair = sizes.bytes_uncut(*machines, total_bytes), sizes.bytes_per_task(*machines, total_bytes)
    most, together = planned_bytes(run, place, uncut, fair)
    return TaskRows(
        sizes.rows_compared(most, dim, other_bytes),
        sizes.rows_per_task(together, dim, other_bytes),
    )
