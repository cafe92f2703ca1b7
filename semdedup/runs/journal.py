"""Tasks that are not done again: each leaves its result as a small JSON file, which a later run finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from semdedup.compute.session import Session, short_repr
from semdedup.storage.location import Location


def run_journaled(
    session: Session,
    name: str,
    function: Callable[[Any], dict[str, Any]],
    items: Sequence[Any],
    folder: Location,
    *,
    unit: str,
    label: Callable[[Any], str] = short_repr,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Call ``function(item)`` on the workers for the items that no earlier run has done.

    A result counts once its JSON file stands in `folder`; a function writes its own files before it returns, so that
    a task killed in the middle is simply done again. Being done twice must do no harm.

    `label` says what an item is, as in `Session.run`.

    Yields:
        (position, result) for every item, those of earlier runs first.
    """
    earlier = dict(read_journal(folder))
    yield from sorted(earlier.items())
    missing = [position for position in range(len(items)) if position not in earlier]
    if earlier:
        session.reporter.say(f"{name}: {len(earlier)} of {len(items)} {unit} were done by an earlier run")
    if missing:
        jobs = [(function, items[position], folder / f"{position}.json") for position in missing]
        for index, result in session.run(name, _do_and_note, jobs, unit=unit, label=lambda job: label(job[1])):
            yield missing[index], result


def read_journal(folder: Location) -> Iterator[tuple[int, dict[str, Any]]]:
    """Results that stand in a folder: (position, result)."""
    for file in folder.files():
        entry = folder.at(file.url)
        if entry.name.endswith(".json"):
            yield int(entry.name.removesuffix(".json")), entry.read_json()


def _do_and_note(job: tuple[Callable[[Any], dict[str, Any]], Any, Location]) -> dict[str, Any]:
    function, item, note = job
    result = function(item)
    note.write_json(result)
    return result
