"""Defaults of a site: what Dask's configuration says of settings, in ~/.config/dask/*.yaml or the environment.

    semdedup:
      cluster: {memory_limit: 8GiB}

It is asked each time that a setting is not given, so that `dask.config.set` counts as well.
"""

from __future__ import annotations

from typing import Any


def said(section: str, name: str) -> Any:
    """What Dask's configuration says of a setting; None where it says nothing."""
    import dask.config  # here: the process that decodes does without Dask

    return dask.config.get(f"{section}.{name}", None)


def names_said(section: str) -> Any:
    """A section of Dask's configuration, with names as in Python; what is no mapping is given as it is."""
    import dask.config

    found = dask.config.get(section, None)
    return {str(name).replace("-", "_"): value for name, value in found.items()} if isinstance(found, dict) else found


def place(section: str) -> str:
    """Where a setting of a site stands, for messages."""
    return f"Dask's configuration: {section}"
