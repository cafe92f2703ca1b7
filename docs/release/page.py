"""Pages whose parts between markers are made by a command."""

import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def put(page: Path, name: str, lines: Iterable[str]) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->``."""
    text = page.read_text(encoding="utf-8")
    _between(text, name)
    made = "\n".join(lines).strip()
    page.write_text(_pattern(name).sub(lambda found: f"{found[1]}\n\n{made}\n\n{found[3]}", text), encoding="utf-8")


def part(page: Path, name: str) -> str:
    """What stands there now."""
    return _between(page.read_text(encoding="utf-8"), name)


def _between(text: str, name: str) -> str:
    found = _pattern(name).search(text)
    if found is None:
        raise ValueError(f"the page has no <!-- {name} --> … <!-- /{name} -->")
    return found[2].strip()


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->)(.*?)(<!-- /{name} -->)", re.DOTALL)
