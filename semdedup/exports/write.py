"""`semdedup.export`: what remains of a result, written in a format that others read; complete or absent."""

from __future__ import annotations

import contextlib
import itertools
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from semdedup.compute.progress import Reporter
from semdedup.dedup.input.files import find_embeddings
from semdedup.dedup.input.lance import import_lance
from semdedup.dedup.names import EXPORTED
from semdedup.display import Displayable
from semdedup.errors import InputError, OutputConflictError, ParameterError
from semdedup.exports.card import card
from semdedup.exports.clips import Clips
from semdedup.exports.gone import DUPLICATE, Fields, Gone
from semdedup.exports.lance import write_lance
from semdedup.exports.options import ExportOptions
from semdedup.exports.rows import kept_rows, schema_of, write_files
from semdedup.runs.at_work import PROGRESS, at_work
from semdedup.runs.files import delete_files, refuse_foreign
from semdedup.runs.owner import FILE_NAME as OWNER
from semdedup.runs.places import EMBEDDINGS_ENDING, OF_EMBEDDER, around, find_part
from semdedup.runs.record import SCRATCH
from semdedup.settings.choices import ExportFormat, RemovalRule
from semdedup.shards.chain import DropChain, find_all_drops
from semdedup.storage.location import UNFINISHED, FileInfo, Location, Paths, locations_of
from semdedup.storage.tables import write_batches
from semdedup.storage.temporary import temporary_prefix
from semdedup.storage.uploads import abort_uploads

WRITTEN = re.compile(
    r"(?:data/train|part)-\d+\.parquet|train/(?:metadata\.parquet|clips/.+)|README\.md|(?:scores|keep)\.lance/.+"
)
"""What the names of the files of an export look like: a record that names others is not believed."""


@dataclass(frozen=True, repr=False)
class Export(Displayable):
    """What `export` wrote.

    Attributes:
        format: ``hf``, ``lance`` or ``parquet``.
        path: the folder.
        counts: ``rows`` of the input, ``kept``, and the others by what became of them.
        eps, removal: by which rows went; None where that is not on record.
    """

    format: str
    path: str
    counts: Mapping[str, int] = field(default_factory=dict)
    eps: float | None = None
    removal: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values, the counts beside the others."""
        found = super().to_json()
        return {**found.pop("counts"), **found}

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell."""
        by = [("removal", self.removal or ""), ("eps", f"{self.eps:.6g}")] if self.eps is not None else []
        named = {name: f"{count:,}" for name, count in self.counts.items() if count or name in ("rows", "kept")}
        return [*named.items(), *by, ("format", self.format), ("data set", self.path)]


def export(
    results: str,
    output_path: str,
    *,
    format: ExportFormat = "hf",
    input_embeddings_path: Paths | None = None,
    clips_path: str | None = None,
    eps: float | None = None,
    removal: RemovalRule | None = None,
    id_field: str | None = None,
    clear_output: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    verbose: bool = True,
) -> Export:
    """Write the rows that remain as a data set for Hugging Face, as Parquet, or scores and ids to keep as Lance.

    Args:
        results: folder of a dedup, or the root of a run; local or remote.
        output_path: a folder that is empty or absent.
        format: ``hf``: ``data/train-*.parquet`` with all columns of the input and a card, README.md, which
            ``datasets.load_dataset(folder)`` and the Hub read; ``parquet``: ``part-*.parquet``; ``lance``:
            ``scores.lance`` (``id``, ``max_id``, ``cosine_sim_score``, ``duplicate``) and ``keep.lance`` (``id``).
        input_embeddings_path: what the dedup read; of a run found by itself, of ``lance`` not needed.
        clips_path: for ``hf``, output of `split` or a folder of MP4 files: the data set becomes one of videos,
            ``train/metadata.parquet`` with a column ``file_name`` and the kept clips, copied below ``train/clips``.
        eps, removal: other ones than those of the result.
        id_field: the column of the ids; that of the result by default.
        clear_output: first delete what an earlier export wrote there.
        storage_options: for fsspec.
        verbose: show progress.

    Rows in quarantine are left out and counted: rows = kept + duplicates + quarantined (+ overlap, + withdrawn).

    Raises:
        InputError: the input is not the one that the result is of. Nothing was written.
        OutputConflictError: the output path holds something.

    Works here, without a cluster. Time: a reading of the input. Memory: a batch of rows, and the ids that go, about
    100 bytes each.
    """
    options, reporter = ExportOptions.of(locals()), Reporter(verbose)
    root, target = Location.of(results, storage_options), Location.of(output_path, storage_options)
    target.check_writable()
    fields = _fields(chain := _chain(root, options), options)
    files = [] if options.format == "lance" else _input(root, target, options, fields, storage_options)
    clips = None if clips_path is None else Clips.of(Location.of(clips_path, storage_options), target)
    _check_empty(target, options.clear_output)
    gone = _gone(chain, reporter)
    with at_work(target, reporter), contextlib.ExitStack() as at_end:
        _clear(target, options.clear_output)
        scratch = target / SCRATCH / "export"
        at_end.callback(scratch.parent.remove_tree)
        with reporter.step("export", gone.n_kept, "rows") as advance, _refusing(reporter):
            counts = _write(scratch, options, chain, gone, (root, files, fields), clips, advance)
            _check_counts(counts, gone, chain)
        _commit(target, scratch, {"format": options.format, "counts": dict(counts)})
        result = Export(options.format, str(target), counts, chain.eps, chain.removal)
        reporter.summarize(result.rows())
    return result


def _gone(chain: DropChain, reporter: Reporter) -> Gone:
    with reporter.step("ids that go", len(chain.links), "results") as advance:
        return Gone.of(chain, advance)


@contextlib.contextmanager
def _refusing(reporter: Reporter) -> Iterator[None]:
    """While what is written may be refused, and taken back."""
    reporter.begun()
    try:
        yield
    except InputError:
        reporter.begun(-1)
        raise


def _commit(target: Location, scratch: Location, facts: Mapping[str, Any]) -> None:
    """Put what was written in place. A later run takes away what one that is killed here has moved."""
    names = [file.url[len(scratch.url) + 1 :] for file in scratch.files()]
    (target / EXPORTED).write_json({"complete": False, **facts, "files": names}, forced=True)
    scratch.move_into(target)
    for name in names:
        (target / name).force()
    (target / EXPORTED).write_json({"complete": True, **facts, "files": names}, forced=True)


def describe_export(results: str, output_path: str, **options: Any) -> Iterator[str]:
    """What `export` would do, in lines of text. Everything is checked; nothing is written."""
    storage_options = options.pop("storage_options", None)
    options.pop("verbose", None)
    chosen = ExportOptions.of(options)
    root, target = Location.of(results, storage_options), Location.of(output_path, storage_options)
    target.check_writable()
    chain = _chain(root, chosen)
    fields = _fields(chain, chosen)
    if chosen.format != "lance":
        files = _input(root, target, chosen, fields, storage_options)
        yield f"input: {len(files):,} files, from {files[0].url} to {files[-1].url}"
    if chosen.clips_path is not None:
        Clips.of(Location.of(chosen.clips_path, storage_options), target)
    _check_empty(target, chosen.clear_output)
    at = "" if chain.eps is None else f" at eps {chain.eps:g} by the removal rule {chain.removal}"
    yield f"duplicates: those of {chain}{at}"
    yield f"would write to {target}: format {chosen.format}"


def _chain(root: Location, options: ExportOptions) -> DropChain:
    try:
        chain = find_all_drops(root, options.eps, options.removal) or DropChain()
    except ParameterError as error:  # of shard, which has another name for it
        text = str(error).replace("(--semantic-dedup-epsilon)", "(--eps)").replace("semantic_dedup_epsilon", "eps")
        raise ParameterError(text) from None
    if len(chain.embedders) > 1:
        folders = ", ".join(f"{OF_EMBEDDER}{name}" for name in chain.embedders)
        raise InputError(
            f"{root} holds the results of several embedders: {folders}; "
            "name one of these folders. What a run keeps by all of them semdedup shard writes."
        )
    return chain


def _fields(chain: DropChain, options: ExportOptions) -> Fields:
    """How the input is read, after checking that what was asked for can be written."""
    if options.format == "lance":
        import_lance("the output")
    found = Fields.of(chain)
    if options.id_field is not None:
        found = found._replace(id=options.id_field)
    if options.clips_path is not None and found.id is None:
        raise ParameterError(
            f"clips_path goes by ids, which the input of {chain} had none of (id_field=None): name the column that "
            "names the clips with id_field (--id-field), or leave clips_path out"
        )
    return found


def _input(
    root: Location, target: Location, options: ExportOptions, fields: Fields, storage_options: Mapping[str, Any] | None
) -> Sequence[FileInfo]:
    """The files of the embeddings."""
    given = locations_of(options.input_embeddings_path, {"storage_options": storage_options})
    own = (place for path in around(root) for place in _own_embeddings(path))
    given = given or list(itertools.islice(own, 1))
    if not given:
        raise ParameterError(
            "input_embeddings_path (--input-embeddings-path) is not given: name the embeddings that the result is of, "
            f"whose rows format {options.format!r} writes"
        )
    return find_embeddings(given, [target], fields.filetype)


def _own_embeddings(path: Location) -> Iterator[Location]:
    """The embeddings of the run whose root this is, or of the split whose output it is."""
    with contextlib.suppress(InputError):
        yield from (place for place in find_part(path, "embeddings") if place.name.endswith(EMBEDDINGS_ENDING))


def _write(
    scratch: Location,
    options: ExportOptions,
    chain: DropChain,
    gone: Gone,
    source: tuple[Location, Sequence[FileInfo], Fields],
    clips: Clips | None,
    advance: Callable[[int], None],
) -> Counter[str]:
    """Write everything to scratch; the counts of rows. `advance` is called with how many are written."""
    counts: Counter[str] = Counter(rows=0, kept=0)
    if options.format == "lance":
        with _local_folder(scratch) as folder:
            write_lance(chain, gone, folder, counts)
        counts["kept"] = counts["rows"] - sum(counts[why] for why in gone.ids)
        advance(counts["kept"])
        return counts
    root, files, fields = source
    schema = schema_of(files, root, fields)
    rows = _counted(kept_rows(files, root, schema, fields, gone, counts), advance)
    data_files = "data/train-*.parquet"
    if clips is not None and fields.id is not None:
        data_files, train = "train/**", scratch / "train"
        write_batches(train / "metadata.parquet", clips.schema(schema), clips.copied(rows, fields.id, train))
    elif options.format == "hf":
        write_files(scratch / "data", "train", schema, rows)
    else:
        write_files(scratch, "part", schema, rows)
    if options.format == "hf":
        (scratch / "README.md").write_bytes(card(data_files, counts, chain.eps, chain.removal).encode())
    return counts


def _counted(rows: Iterable[pa.Table], advance: Callable[[int], None]) -> Iterator[pa.Table]:
    for table in rows:
        yield table
        advance(len(table))


@contextlib.contextmanager
def _local_folder(target: Location) -> Iterator[Path]:
    """A folder on this machine, whose files are at `target` afterwards: Lance writes with a client of its own."""
    if target.is_local:
        yield Path(target.url)
        return
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as folder:
        yield Path(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                (target / path.relative_to(folder).as_posix()).take(path)


def _check_counts(counts: Counter[str], gone: Gone, chain: DropChain) -> None:
    """Refuse an input that is not the one of the result: some of what goes, or what stays, is not in it."""
    duplicates = len(gone.ids[DUPLICATE])
    if counts[DUPLICATE] != duplicates:
        raise InputError(
            f"the input is not the one that {chain} is of: {duplicates:,} rows of that are duplicates, of which "
            f"{counts[DUPLICATE]:,} are in the input. Nothing was written."
        )
    if gone.n_kept is not None and counts["kept"] != gone.n_kept:
        raise InputError(
            f"the input is not the one that {chain} is of: that keeps {gone.n_kept:,} rows, and {counts['kept']:,} of "
            "the input would stay. Nothing was written."
        )


def _names_in(target: Location) -> list[str]:
    names = target.folder_names()
    return [name for name in names if name not in (OWNER, PROGRESS, SCRATCH) and not UNFINISHED.fullmatch(name)]


def _record_in(target: Location) -> Mapping[str, Any] | None:
    """The record of an export in a folder. Raises `OutputConflictError` where it names what no export writes."""
    place = target / EXPORTED
    try:
        found = place.read_json() if place.exists() else None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("files"), list):
        return None
    foreign = [name for name in map(str, found["files"]) if not WRITTEN.fullmatch(name)]
    if foreign:
        raise OutputConflictError(
            f"{place} names {foreign[0]!r}, which no export writes: the record is damaged or was made to harm. Nothing "
            "was changed. Choose another output path, or move this folder away."
        )
    return found


def _check_empty(target: Location, clear: bool) -> None:
    """Refuse a folder that holds a complete export, which is not to be cleared, or files of others."""
    if not target.exists():
        return
    record = _record_in(target)
    if record is not None and record.get("complete") and not clear:
        raise OutputConflictError(
            f"{target} holds an export already. Take another output path, or clear_output=True (--overwrite) to write "
            "it anew."
        )
    ours = {str(name).split("/")[0] for name in record["files"]} | {EXPORTED} if record is not None else set()
    refuse_foreign(target, [name for name in _names_in(target) if name not in ours], "that no export wrote")


def _clear(target: Location, clear: bool) -> None:
    """Delete what an earlier export wrote, or one that was killed had begun to."""
    _check_empty(target, clear)
    (target / SCRATCH).remove_tree()
    abort_uploads(target / SCRATCH, lambda name: True)
    record = _record_in(target)
    if record is not None:
        delete_files(target, map(str, record["files"]))
        (target / EXPORTED).remove()
