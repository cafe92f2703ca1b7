"""The command line: each command parses, calls one function of the library, and prints what it gives back."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from semdedup import __version__
from semdedup.compute import ClusterOptions
from semdedup.dedup.inputs import find_files, recommended_eps
from semdedup.dedup.layout import COMMAND_LINE
from semdedup.dedup.pipeline import Pipeline
from semdedup.dedup.ranking import WHICH_TO_KEEP
from semdedup.dedup.result import DedupResult
from semdedup.dedup.stages import IdentifyDuplicatesStage
from semdedup.dedup.workflow import SemanticDeduplicationWorkflow
from semdedup.demo import run_demo
from semdedup.doctor import examine
from semdedup.errors import ParameterError, SemdedupError
from semdedup.storage import Location
from semdedup.video.clip_ids import SCHEMES
from semdedup.video.embedders import NAMES
from semdedup.video.encoders import CHOICES
from semdedup.video.plan import ALGORITHMS, CUTS
from semdedup.video.source import Limits
from semdedup.video.workflow import VideoEmbedWorkflow, VideoSplitWorkflow

DEFAULT_EPS = 0.1
EXIT_FAILED, EXIT_USAGE, EXIT_QUARANTINE = 1, 2, 3

# What users of the older programs know: an option takes several values separated by spaces, by commas, or repeated.


class ManyValues(click.Option):
    """An option that takes several values: ``--eps 0.1 0.01``, ``--eps 0.1,0.01`` and ``--eps 0.1 --eps 0.01``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.item_type = click.types.convert_type(kwargs.pop("type", str))
        super().__init__(*args, **{**kwargs, "multiple": True, "type": str})

    def type_cast_value(self, ctx: click.Context, value: Any) -> tuple[Any, ...]:
        """Split at commas and convert each value."""
        parts = [part.strip() for text in value or () for part in str(text).split(",")]
        return tuple(self.item_type.convert(part, self, ctx) for part in parts if part)


class Command(click.Command):
    """A command whose `ManyValues` options go on until the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the name of such an option before each of its values, which is what Click understands."""
        names = {name for param in self.params if isinstance(param, ManyValues) for name in param.opts}
        spelled: list[str] = []
        current = ""
        for position, arg in enumerate(args):
            name = arg.partition("=")[0]
            if arg == "--":
                spelled += args[position:]
                break
            if arg.startswith("--"):
                current = name if name in names else ""
                spelled.append(arg)
            elif current and spelled[-1] != current:
                spelled += [current, arg]
            else:
                spelled.append(arg)
        return super().parse_args(ctx, spelled)


class Group(click.Group):
    """The program; its commands are of the class above."""

    command_class = Command


def cluster_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Flags of every command that runs on Dask."""
    flags = [
        click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler to work on, tcp://host:8786."),
        click.option("--scheduler-file", metavar="FILE", help="JSON file that a running scheduler wrote."),
        click.option(
            "--n-workers", type=click.IntRange(1), help="Workers to start here; one a core or GPU by default."
        ),
        click.option("--threads-per-worker", type=click.IntRange(1), default=1, show_default=True),
        click.option("--memory-limit", default="auto", show_default=True, help="Memory of each worker, as in 2GiB."),
        click.option("--backend", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True),
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


def storage_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Flags of every command that touches storage."""
    options = click.option(
        "--storage-options",
        metavar="JSON",
        help="Options for fsspec. Never printed, logged or stored; prefer --profile.",
    )
    profile = click.option("--profile", metavar="NAME", help="Profile of the AWS credentials file.")
    return options(profile(function))


def output_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Flags on how much to say."""
    verbose = click.option("--verbose", is_flag=True, help="Show tracebacks of unexpected errors in full.")
    return verbose(click.option("--quiet", is_flag=True, help="No progress.")(function))


def _cluster(flags: dict[str, Any]) -> ClusterOptions:
    names = ("scheduler", "scheduler_file", "n_workers", "threads_per_worker", "memory_limit", "backend")
    return ClusterOptions(**{name: flags.pop(name) for name in names})


def _storage(flags: dict[str, Any]) -> dict[str, Any]:
    text, profile = flags.pop("storage_options"), flags.pop("profile")
    options: Any = {}
    if text is not None:
        try:
            options = json.loads(text)
        except ValueError as error:
            raise ParameterError(
                f"--storage-options is not valid JSON, at character {getattr(error, 'pos', '?')}"
            ) from None
    if not isinstance(options, dict):
        raise ParameterError('--storage-options must be a JSON object, such as {"anon": true}')
    return {**options, **({"profile": profile} if profile else {})}


@contextlib.contextmanager
def _errors(verbose: bool) -> Iterator[None]:
    """Turn what the library raises into one clear message and an exit status."""
    try:
        yield
    except SemdedupError as error:
        if verbose:
            raise
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(EXIT_USAGE if isinstance(error, ParameterError) else EXIT_FAILED)


def _show(result: DedupResult) -> None:
    Console(soft_wrap=False).print(result.table())
    for reason in result.skipped_files[:10]:
        click.echo(f"skipped: {reason}", err=True)


def _exit_status(result: DedupResult) -> int:
    return EXIT_QUARANTINE if result.n_quarantined or result.skipped_files else 0


@click.group("semdedup", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="semdedup")
def main() -> None:
    """Remove near-duplicates from video training sets, on Dask, with or without GPUs.

    \b
    Try it:
      semdedup demo
    """


def embedding_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Flags of every command that embeds clips."""
    flags = [
        click.option("--embedding-algorithm", type=click.Choice(list(NAMES)), default="dct3d", show_default=True),
        click.option("--model-dir", help="Folder of the model; nothing is ever downloaded."),
        click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model."),
        click.option("--embedding-batch-size", type=click.IntRange(1), help="Clips that a model embeds at a time."),
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


def limit_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Flags on what one video may cost."""
    usual = Limits()
    told = {
        "timeout_s": ("--video-timeout", click.FLOAT, "Seconds without progress after which a video is given up."),
        "max_pixels": ("--max-pixels", click.IntRange(1), "Most pixels of a frame."),
        "max_frames": ("--max-frames", click.IntRange(1), "Most frames of a video."),
    }
    flags = [
        click.option(flag, name, type=kind, default=getattr(usual, name), show_default=True, help=text)
        for name, (flag, kind, text) in told.items()
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


def _limits(flags: dict[str, Any]) -> Limits:
    return Limits(**{name: flags.pop(name) for name in ("max_pixels", "max_frames", "timeout_s")})


@main.command()
@click.option(
    "--video-dir", "--input-video-path", "input_path", cls=ManyValues, required=True, help="Folder, file, glob."
)
@click.option("--output-clip-path", "--output-path", "output_path", required=True, help="Folder, local or s3://.")
@click.option("--splitting-algorithm", type=click.Choice(ALGORITHMS), default="fixed_stride", show_default=True)
@click.option("--fixed-stride-split-duration", type=float, default=10.0, show_default=True, help="Seconds of a clip.")
@click.option(
    "--fixed-stride-stride-s", type=float, help="Seconds from one start to the next; the duration by default."
)
@click.option("--fixed-stride-min-clip-length-s", type=float, default=2.0, show_default=True)
@click.option("--scene-min-length-s", type=float, default=2.0, show_default=True)
@click.option("--scene-max-length-s", type=float, default=60.0, show_default=True)
@click.option(
    "--cut",
    type=click.Choice(CUTS),
    default="reencode",
    show_default=True,
    help="Exact to the frame, or without loss at key frames.",
)
@click.option("--transcode-encoder", type=click.Choice(CHOICES), default="auto", show_default=True)
@click.option(
    "--clip-id-scheme",
    type=click.Choice(SCHEMES),
    default="semdedup",
    show_default=True,
    help="Ids as the peers make them, or ones that stay when the folder moves.",
)
@click.option("--no-upload-clips", "upload_clips", flag_value=False, default=True, help="Write no MP4 files.")
@click.option("--no-generate-embeddings", "generate_embeddings", flag_value=False, default=True, help="Embed nothing.")
@click.option("--generate-previews", is_flag=True, help="Write an animated WebP for each clip.")
@click.option("--limit", type=click.IntRange(0), default=0, help="Most videos that this run processes.")
@click.option("--limit-clips", type=click.IntRange(0), default=0, help="Most clips of each video.")
@click.option("--overwrite", is_flag=True, help="First delete what an earlier split wrote to the output path.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and write nothing.")
@embedding_flags
@limit_flags
@cluster_flags
@storage_flags
@output_flags
def split(verbose: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """Cut videos into clips, and embed each clip.

    \b
    Example:
      semdedup split --video-dir videos --output-clip-path clips --fixed-stride-split-duration 10
      semdedup dedup --input-embeddings-path clips/dct3d_embd_parquet --output-path clips/dedup
    """
    with _errors(verbose):
        _run_videos(VideoSplitWorkflow, dry_run, quiet, flags)


@main.command()
@click.option("--input-clip-path", "input_path", cls=ManyValues, required=True, help="Output of split, or a folder.")
@click.option("--output-path", help="Folder for the embeddings; beside the clips by default.")
@click.option("--limit", type=click.IntRange(0), default=0, help="Most clips that this run embeds.")
@click.option("--overwrite", is_flag=True, help="First delete what an earlier run of this wrote to the output path.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and write nothing.")
@embedding_flags
@limit_flags
@cluster_flags
@storage_flags
@output_flags
def embed(verbose: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """Embed clips that exist; the name of a file without its ending is the id of the clip.

    \b
    Example:
      semdedup embed --input-clip-path clips --embedding-algorithm hf --model-dir models/siglip2
    """
    with _errors(verbose):
        _run_videos(VideoEmbedWorkflow, dry_run, quiet, flags)


def _run_videos(
    workflow: type[VideoSplitWorkflow] | type[VideoEmbedWorkflow], dry_run: bool, quiet: bool, flags: dict[str, Any]
) -> None:
    cluster, kwargs = _cluster(flags), {"storage_options": _storage(flags)}
    made = workflow(
        input_path=list(flags.pop("input_path")),
        clear_output=flags.pop("overwrite"),
        limits=_limits(flags),
        read_kwargs=kwargs,
        write_kwargs=kwargs,
        verbose=not quiet,
        **flags,
    )
    if dry_run:
        for line in made.plan(cluster=cluster):
            click.echo(line)
        return
    result = made.run(cluster=cluster)
    Console(soft_wrap=False).print(result.table())
    for fault in result.faults():
        click.echo(f"quarantine: {fault}", err=True)
    sys.exit(EXIT_QUARANTINE if result.quarantined else 0)


@main.command()
@click.option("--input-embeddings-path", "input_path", cls=ManyValues, required=True, help="Folder, file or glob.")
@click.option("--output-path", required=True, help="Folder for results, local or s3://.")
@click.option("--cache-path", help="Folder for clusters and scores; the output path by default.")
@click.option("--n-clusters", default="auto", show_default=True, help="Number of clusters, or auto.")
@click.option("--eps-thresholds", cls=ManyValues, type=float, help="Write a summary for each of these.")
@click.option("--eps-threshold", type=float, help="One threshold, to summarise and to extract.")
@click.option("--eps-to-extract", type=float, help="Write the ids to drop for this one.")
@click.option("--which-to-keep", type=click.Choice(list(WHICH_TO_KEEP)), default="hard", show_default=True)
@click.option(
    "--sim-metric",
    type=click.Choice(["cosine", "l2"]),
    default="cosine",
    show_default=True,
    help="Distance to the centroid that ranks.",
)
@click.option("--files-per-partition", type=click.IntRange(1), help="Most files in one partition.")
@click.option("--id-field", default="id", show_default=True)
@click.option("--embedding-field", default="embedding", show_default=True)
@click.option("--embedding-dim", type=click.IntRange(1), help="Expected length; the commonest by default.")
@click.option("--metadata-fields", cls=ManyValues, help="Columns to carry along.")
@click.option("--input-filetype", type=click.Choice(["parquet", "jsonl"]), default="parquet", show_default=True)
@click.option("--random-state", type=int, default=42, show_default=True)
@click.option("--max-iter", type=click.IntRange(1), default=300, show_default=True)
@click.option("--fit-data-fraction", type=float, help="Share of the rows that the clustering is fitted on.")
@click.option("--pairwise-batch-size", type=click.IntRange(1), default=1024, show_default=True)
@click.option("--skip-bad-files", is_flag=True, help="Count and list files that cannot be read, and go on.")
@click.option("--overwrite", is_flag=True, help="First delete what semdedup wrote to the output path before.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@cluster_flags
@storage_flags
@output_flags
def dedup(verbose: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """Find near-duplicates among embeddings and write the ids to drop.

    \b
    Example:
      semdedup dedup --input-embeddings-path clips/iv2_embd_parquet --output-path clips/dedup \\
          --n-clusters 1000 --eps-thresholds 0.01 0.001 --eps-to-extract 0.01
    """
    with _errors(verbose):
        cluster, storage = _cluster(flags), _storage(flags)
        thresholds, extract, why = _thresholds(flags, storage)
        if not quiet:
            click.echo(f"eps {extract:g} ({why})", err=True)
        kwargs = {"storage_options": storage}
        workflow = SemanticDeduplicationWorkflow(
            input_path=list(flags.pop("input_path")),
            n_clusters=_n_clusters(flags.pop("n_clusters")),
            metadata_fields=flags.pop("metadata_fields"),
            clear_output=flags.pop("overwrite"),
            eps=extract,
            count_at=thresholds,
            read_kwargs=kwargs,
            write_kwargs=kwargs,
            layout=COMMAND_LINE,
            verbose=not quiet,
            **flags,
        )
        if dry_run:
            click.echo("\n".join(workflow.describe()))
            return
        result = workflow.run(cluster=cluster)
        _show(result)
        sys.exit(_exit_status(result))


def _n_clusters(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text  # the library accepts "auto" and says so of anything else


def _thresholds(flags: dict[str, Any], storage: dict[str, Any]) -> tuple[Sequence[float], float, str]:
    """Thresholds to summarise at, the one to extract, and where it comes from."""
    several, single, extract = flags.pop("eps_thresholds"), flags.pop("eps_threshold"), flags.pop("eps_to_extract")
    if several and single is not None:
        raise ParameterError("give --eps-thresholds or --eps-threshold, not both")
    given = list(several) or ([single] if single is not None else [])
    if extract is not None:
        why = "--eps-to-extract"
    elif given:
        extract, why = given[0], "--eps-threshold" if single is not None else "the first of --eps-thresholds"
    else:
        locations = [Location.of(path, storage) for path in flags["input_path"]]
        files = find_files(locations, flags["input_filetype"])
        extract = None
        if flags["input_filetype"] == "parquet":
            extract = recommended_eps([locations[0].at(file.url) for file in files], flags["skip_bad_files"])
        why = "recommended by the embedder, from the Parquet metadata"
        if extract is None:
            extract, why = DEFAULT_EPS, "the default; none was given and the input recommends none"
    return list(dict.fromkeys([*given, extract])), extract, why


@main.command()
@click.argument("results")
@click.option("--eps", type=float, required=True, help="Drop rows whose score is at least 1 - eps.")
@click.option("--output-path", help="Folder to write to; RESULTS/eps_{eps} by default.")
@click.option("--overwrite", is_flag=True, help="First delete what semdedup wrote to the output path before.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@cluster_flags
@storage_flags
@output_flags
def extract(
    results: str, eps: float, output_path: str | None, dry_run: bool, verbose: bool, quiet: bool, **flags: Any
) -> None:
    """Write the ids to drop for another eps, from scores that exist; nothing is computed again.

    \b
    Example:
      semdedup extract clips/dedup --eps 0.05
    """
    with _errors(verbose):
        cluster, kwargs = _cluster(flags), {"storage_options": _storage(flags)}
        stage = IdentifyDuplicatesStage(
            eps=eps,
            count_at=[eps],
            input_path=results,
            output_path=output_path or f"{results.rstrip('/')}/eps_{eps:.6g}",
            read_kwargs=kwargs,
            write_kwargs=kwargs,
            clear_output=flags["overwrite"],
            verbose=not quiet,
            folder=COMMAND_LINE.duplicates,
        )
        if dry_run:
            click.echo("\n".join(Pipeline("extract").add_stage(stage).describe()))
            return
        found = stage.run(cluster=cluster)
        rows, duplicates = found.facts["rows"], found.facts["duplicates"]
        click.echo(f"eps {eps:g}: {duplicates:,} of {rows:,} rows are duplicates, {rows - duplicates:,} are kept")
        click.echo(f"ids to drop: {found.path}")


@main.command()
@click.option("--input-path", "reads", cls=ManyValues, help="Paths that every worker must read.")
@click.option("--output-path", "writes", cls=ManyValues, help="Folders that every worker must write to.")
@cluster_flags
@storage_flags
@output_flags
def doctor(reads: Sequence[str], writes: Sequence[str], verbose: bool, quiet: bool, **flags: Any) -> None:
    """Check versions, GPUs, scheduler, workers, free memory, and whether every worker sees the paths.

    \b
    Example:
      semdedup doctor --scheduler tcp://10.0.0.1:8786 --input-path s3://bucket/emb --output-path s3://bucket/out
    """
    del quiet
    with _errors(verbose):
        cluster, storage = _cluster(flags), _storage(flags)
        table = Table(title="semdedup doctor", title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        table.add_column()
        places = ([Location.of(path, storage) for path in paths] for paths in (reads, writes))
        findings = list(examine(cluster, *places))
        for finding in findings:
            table.add_row(finding.subject, finding.found, "[green]ok[/green]" if finding.well else "[red]fault[/red]")
        Console().print(table)
        sys.exit(0 if all(finding.well for finding in findings) else EXIT_FAILED)


@main.command()
@click.option("--output-path", default="semdedup-demo", show_default=True, help="Folder to write to.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@cluster_flags
@output_flags
def demo(output_path: str, dry_run: bool, verbose: bool, quiet: bool, **flags: Any) -> None:
    """Make 20,000 embeddings with known near-duplicates, dedup them here, and tell what was found.

    \b
    Example:
      semdedup demo --output-path /tmp/semdedup-demo
    """
    with _errors(verbose):
        if dry_run:
            click.echo(f"would write embeddings to {output_path}/embeddings and dedup them into {output_path}/results")
            return
        result = run_demo(output_path, _cluster(flags), verbose=not quiet)
        _show(result.run)
        click.echo(
            f"found {result.found:,} of {result.planted:,} planted near-duplicates; {result.wrong:,} other rows dropped"
        )


if __name__ == "__main__":
    main()
