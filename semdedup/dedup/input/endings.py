"""Which files hold embeddings: by their names, and where these say nothing by their first bytes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from semdedup.dedup.input.datasets import ARROW
from semdedup.errors import StorageError
from semdedup.storage.faults import chain
from semdedup.storage.location import REQUESTS_IN_FLIGHT, FileInfo, Location

EXTENSIONS = {"parquet": (".parquet", ".pq", ".parq"), "jsonl": (".jsonl", ".ndjson")}
"""Endings of the files that are read, in any case; ``.snappy.parquet`` and its like are among them."""

WHAT_IS_READ = (
    "what is read is Parquet (.parquet, .pq, .parq), JSON Lines (.jsonl, .ndjson), Arrow files that are named (.arrow, "
    ".feather), Lance data sets, and folders of Hugging Face's save_to_disk"
)
NEVER_JSON = (*EXTENSIONS["parquet"], ".csv", ".tsv", ".npy", ".npz", ".jsonl.gz", ".jsonl.zst")
"""Endings of files that are no JSON Lines even where such a file is given by its own name."""

PICKLES = (".pickle", ".pkl")

OTHERS = frozenset(
    f".{ending}"
    for kind in (
        "json csv tsv txt md log yaml yml toml ini cfg xml html pdf py ipynb sh sql",
        "arrow feather ipc avro orc lance h5 hdf5 npy npz mat pt pth ckpt safetensors onnx tfrecord tfrecords",
        "pickle pkl sqlite faiss index zip tar tgz 7z jpg jpeg png webp gif mp4 mov avi mkv webm wav mp3 srt vtt",
        "crc md5 sha256 tmp lock part partial",
    )
    for ending in kind.split()
)
"""Files with these endings are neither Parquet nor JSON Lines. In files with any other ending the first bytes tell."""

COMPRESSED = (".gz", ".gzip", ".bz2", ".zst", ".zstd", ".xz", ".lz4", ".snappy", ".br")
"""Endings behind another one, as in ``.csv.gz``. (pandas writes Parquet to ``.parquet.gzip`` where told so.)"""

MAGIC_BYTES = (b"PAR1", b"PARE")
"""How a Parquet file begins and ends, and one whose footer is encrypted."""

MOST_LOOKED_INTO = 10_000
"""Files whose first bytes are read, in one folder or pattern; where there are more with such endings, none is."""

PLAIN = re.compile(r"[a-z0-9_]{1,10}")

CONVERT = {
    ".csv": "pd.read_csv('{name}', converters={{'embedding': json.loads}}).to_parquet('{stem}.parquet')",
    ".tsv": "pd.read_csv('{name}', sep='\\t', converters={{'embedding': json.loads}}).to_parquet('{stem}.parquet')",
    ".json": "pd.read_json('{name}').to_parquet('{stem}.parquet')",
    ".npy": "pq.write_table(pa.table({{'id': range(len(x)), 'embedding': list(x)}}), '{stem}.parquet') "
    "with x = np.load('{name}')",
    ".npz": "pq.write_table(pa.table({{'id': ids, 'embedding': list(x)}}), '{stem}.parquet') "
    "with ids and x out of np.load('{name}')",
}
"""A line of Python that writes Parquet from a file with such an ending."""


def ending_of(name: str) -> str:
    """The ending of a file name in lower case, with the one before where it tells of compression; empty for none.

    >>> ending_of("a.PARQUET"), ending_of("b.csv.gz"), ending_of("part-r-00000"), ending_of(".a.b c")
    ('.parquet', '.csv.gz', '', '')
    """
    stem, dot, last = name.lower().lstrip("._").rpartition(".")
    if not dot or not PLAIN.fullmatch(last):
        return ""
    if f".{last}" in COMPRESSED:
        return ending_of(stem) + f".{last}"
    return f".{last}"


def is_other(ending: str) -> bool:
    """Whether an ending says that a file is neither Parquet nor JSON Lines that can be read."""
    plain = ending.rpartition(".")[0] if ending.endswith(COMPRESSED) else ending
    return plain in OTHERS or plain in EXTENSIONS["jsonl"]


def conversion(name: str) -> str:
    """How such a file can be read, or made Parquet, in one line; empty where there is no such line."""
    if ending_of(name) in ARROW:
        return f" Arrow files are read where they are named, as by the pattern *{ending_of(name)}."
    stem = name.rpartition(".")[0]
    line = CONVERT.get(ending_of(name), "")
    return "" if not line else f" To convert one: {line.format(name=name, stem=stem)}."


def look_into(storage: Location, files: Sequence[FileInfo]) -> list[bool | None]:
    """Whether each file begins and ends as Parquet does; None for what is no regular file, or may not be read."""

    def look(file: FileInfo) -> bool | None:
        place = storage.at(file.url)
        try:
            return _is_parquet(place, file.n_bytes, file.stamp) if is_regular(place) else None
        except StorageError as error:
            if any(isinstance(cause, FileNotFoundError | PermissionError) for cause in chain(error)):
                return None
            raise

    with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
        return list(pool.map(look, files))


def is_regular(place: Location) -> bool:
    """Whether a file is one, and no pipe or device. A link that leads nowhere fails where it is read, with its name."""
    if not place.is_local:
        return True
    try:
        return stat.S_ISREG(os.stat(place.url).st_mode)
    except OSError:
        return True


@lru_cache(maxsize=2 * MOST_LOOKED_INTO)
def _is_parquet(place: Location, n_bytes: int, stamp: str) -> bool:
    """Whether a file begins and ends so. A run lists its input several times; the stamp tells of changes in between."""
    if n_bytes < 12:
        return False
    return place.read_bytes(0, 4) in MAGIC_BYTES and place.read_bytes(n_bytes - 4, n_bytes) in MAGIC_BYTES
