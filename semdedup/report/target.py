"""Where the page goes: what it may replace there, and how it leads to the clips from there."""

from __future__ import annotations

import os
from urllib.parse import quote

from semdedup.compute.progress import Reporter
from semdedup.errors import OutputConflictError
from semdedup.storage.location import Location

GENERATOR = b'<meta name="generator" content="semdedup'
PICTURE = b"data:image/jpeg;base64"


def check_target(target: Location, overwrite: bool) -> None:
    """Refuse to replace what is no page of ours."""
    if overwrite or not target.exists():
        return
    if target.is_dir() or GENERATOR not in target.read_bytes(0, 4096):
        raise OutputConflictError(
            f"{target} exists and is no report of semdedup; choose another --output-path, or give --overwrite"
        )


def check_pictures(target: Location, page: bytes, shows_clips: bool, reporter: Reporter) -> None:
    """Refuse to replace a page that has pictures by one that shows clips without; of one that has fewer it is said."""
    if not target.exists():
        return
    before, now = target.read_bytes().count(PICTURE), page.count(PICTURE)
    if before and shows_clips and not now:
        raise OutputConflictError(
            f"{target} has {before:,} pictures, and the new page would have none. Name the folder of the clips with "
            "clips (--clips), choose another --output-path, or give --overwrite"
        )
    if now < before:
        reporter.say(f"{target}: {now:,} pictures; the page that was there had {before:,}")


def link_to(url: str, page: Location) -> str:
    """How a page leads to a clip's file: by a path relative to it where both are local; empty where it cannot.

    >>> link_to("/out/clips/clips/a b.mp4", Location.of("/out/report.html"))
    './clips/clips/a%20b.mp4'
    """
    place = page.at(url) if url else page
    if not url or not page.is_local or not place.is_local:
        return ""
    path = os.path.relpath(url, os.path.dirname(page.url)).replace(os.sep, "/")
    return quote(path if path.startswith("../") else f"./{path}", errors="surrogateescape")
