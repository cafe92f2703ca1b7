"""The threshold that nobody gave: what the embedder of the files recommends, else the default."""

from __future__ import annotations

from collections.abc import Sequence

from semdedup.dedup.threshold.rule import DEFAULT_EPS, check_eps
from semdedup.errors import BadFileError
from semdedup.storage.location import Location
from semdedup.storage.tables import RECOMMENDED_EPS, open_parquet


def recommended_eps(files: Sequence[Location], skip_bad_files: bool = False) -> float | None:
    """The eps that the embedder recommends in the schema metadata of the first file that can be read, if any.

    Raises:
        BadFileError: the file cannot be read, or the value there is no number in [0, 1).
    """
    for location in files:
        try:
            with open_parquet(location) as file:
                text = (file.schema_arrow.metadata or {}).get(RECOMMENDED_EPS)
                eps = None if text is None else float(text)  # a ValueError becomes a BadFileError that names the file
                if eps is not None and not 0 <= eps < 1:
                    raise ValueError(f"its metadata recommends eps {eps}, which is not in [0, 1)")
                return eps
        except BadFileError:
            if not skip_bad_files:
                raise
    return None


def chosen_eps(eps: float | None, files: Sequence[Location], skip_bad_files: bool = False) -> tuple[float, str]:
    """The threshold, and who chose it: the user, else the embedder of the files, else nobody."""
    if eps is not None:
        return check_eps(eps), "given"
    found = recommended_eps(files, skip_bad_files)
    if found is not None:
        return found, "recommended by the embedder, from the Parquet metadata"
    return DEFAULT_EPS, "the default; none was given and the input recommends none"
