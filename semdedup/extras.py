"""What the extras of the package bring, by the names that any package index knows them by."""

import re
import shlex
from collections.abc import Iterator
from importlib.metadata import requires

OWN = re.compile(r"semdedup\[([^]]+)\]")
"""An extra that asks for other extras."""


def pip_install(extra: str, *beside: str) -> str:
    """The command that installs what an extra brings, whatever the name `semdedup` stands for on an index.

    Args:
        extra: as in ``pip install '.[extra]'`` in a checkout.
        beside: further packages.

    >>> pip_install("plot")
    "pip install 'matplotlib>=3.9'"
    """
    return shlex.join(["pip", "install", *dict.fromkeys(_packages(extra)), *beside])


def _packages(extra: str) -> Iterator[str]:
    for line in requires("semdedup") or ():
        package, _, marker = line.partition(";")
        if not re.search(rf"\bextra == [\"']{extra}[\"']", marker):
            continue
        if found := OWN.fullmatch(package.strip()):
            for name in found[1].split(","):
                yield from _packages(name.strip())
        else:
            yield package.strip()
