"""Pages that are made of the code whenever the documentation is built, so that nothing in them can be out of date.

One for each command, of Click's own declarations and their headings; one for each public name, of its docstring; and
the table of embedders; and what the recipes of deployment say. They lie in ``made/``, which git does not know.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

import semdedup
from semdedup import cli
from semdedup.cli.config import template
from semdedup.cli.config_file import names_of
from semdedup.cli.help import records_of
from semdedup.video.steps.embed.catalogue import as_markdown

GROUPS: dict[str, tuple[str, ...]] = {
    "From files to results": (
        *("VideoDeduplicationWorkflow", "VideoSplitWorkflow", "VideoEmbedWorkflow", "VideoCaptionWorkflow"),
        *("SemanticDeduplicationWorkflow", "ShardWorkflow", "find_overlaps", "find_pairs", "find_leaks", "estimate"),
        *("extract", "export", "calibrate", "write_report", "plot_curve", "show_pairs", "load"),
    ),
    "Frames and arrays": (
        *("deduplicate", "frames", "max_similarity"),
        *("read_embeddings", "read_clusters", "read_scores", "read_duplicates", "read_witnesses"),
    ),
    "Stage by stage": (
        *("Pipeline", "KMeansStage", "PairwiseStage", "IdentifyDuplicatesStage", "CrossStage", "PairsStage"),
    ),
    "Settings": ("RankingStrategy", "ClusterOptions", "PlanOptions", "Limits"),
    "What comes back": (
        *("RunResult", "SplitResult", "CaptionResult", "OverlapsResult", "DedupResult", "ShardResult", "StageResult"),
        *("Extraction", "Export", "Estimate", "Calibration", "LeakResult", "PairsResult", "BaseSummary", "Withdrawal"),
        *("Group", "Pair", "Explanation", "Span"),
    ),
    "Errors": (
        *("SemdedupError", "ParameterError", "InputError", "BadFileError", "DuplicateIdError", "StorageError"),
        *("IntegrityError", "OutputConflictError", "ClusterError"),
    ),
    "Where results lie": tuple(name for name in semdedup.__all__ if name.startswith("get_output_path_")),
}
"""The public names below the headings of the API reference."""


def _escaped(text: str) -> str:
    """Help as reStructuredText: flags and what stands in backquotes as code."""
    text = re.sub(r"`+([^`]+)`+", r"\0\1\0", text)
    parts = text.split("\0")
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"``{part}``"
        else:
            marked = re.sub(r"([\\*|])", r"\\\1", part)
            marked = re.sub(r"(\w)_(?!\w)", r"\1\\_", marked)
            parts[i] = re.sub(r"(?<![\w`-])--[a-z][a-z0-9-]*", r"``\g<0>``", marked)
    return "".join(parts)


def _title(text: str, line: str = "=") -> list[str]:
    return [text, line * len(text), ""]


def _help(text: str) -> Iterator[str]:
    """The paragraphs of a command's help; what Click is told to leave as it is (\\b) are examples."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            first, *rest = paragraph.splitlines()[1:]
            yield from [_escaped(first), "", ".. code-block:: sh", ""]
            yield from [*textwrap.indent(textwrap.dedent("\n".join(rest)), "   ").splitlines(), ""]
        else:
            yield from [_escaped(" ".join(paragraph.split())), ""]


def command_page(name: str, commands: dict[str, click.Command]) -> Iterator[str]:
    """Everything that `semdedup NAME --help` says, and the file that `semdedup config NAME` prints."""
    command = commands[name]
    ctx = click.Context(command, info_name=f"semdedup {name}", help_option_names=["-h", "--help"])
    yield from _title(f"semdedup {name}")
    yield from [".. code-block:: text", "", f"   {command.get_usage(ctx).removeprefix('Usage: ')}", ""]
    yield from _help(command.help or "")
    yield from [f".. program:: semdedup {name}", ""]
    for heading, records in records_of(command, ctx).items():
        yield from _title(heading, "-")
        for spelled, text in records:
            yield from [f".. option:: {spelled.replace(' / ', ', ')}", "", f"   {_escaped(text)}", ""]
    if names_of(command):
        yield from _title("In a file", "-")
        yield from [f"What ``semdedup config {name}`` prints, for ``--config``; flags win over it.", ""]
        yield from [".. code-block:: yaml", "", *(f"   {line}".rstrip() for line in template(name, commands)), ""]


def name_page(name: str) -> Iterator[str]:
    """The reference of a public name."""
    value = getattr(semdedup, name)
    yield from _title(name if name != "frames" else "semdedup.frames")
    if inspect.ismodule(value):
        yield from [f".. automodule:: semdedup.{name}", "   :members:", ""]
    elif inspect.isclass(value):
        yield from [".. currentmodule:: semdedup", "", f".. autoclass:: {name}", "   :members:"]
        yield from ["   :show-inheritance:", ""] if issubclass(value, Exception) else [""]
    else:
        yield from [".. currentmodule:: semdedup", "", f".. autofunction:: {name}", ""]


def first_sentence(value: Any) -> str:
    """What a docstring, or the help of a command, begins with."""
    text = value.help if isinstance(value, click.Command) else inspect.getdoc(value)
    return " ".join((text or "").split("\n\n")[0].split())


def table(kind: str, rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A line in Markdown for each page of a kind, with what it is about."""
    yield from ["| | |", "|---|---|"]
    for name, about in rows:
        yield f"| [`{name}`](/made/{kind}/{name}.rst) | {about} |"
    yield ""


def contents(kind: str, names: Iterable[str]) -> Iterator[str]:
    """The pages of a kind in the list of contents."""
    yield from ["```{toctree}", ":hidden:", "", *(f"/made/{kind}/{name}" for name in names), "```"]


def api_index() -> Iterator[str]:
    """The public names below their headings, and the pages of all."""
    listed = [name for names in GROUPS.values() for name in names]
    if sorted(listed) != semdedup.__all__:
        raise ValueError(f"GROUPS lacks or adds {set(listed) ^ set(semdedup.__all__)}: say where these names belong")
    for title, names in GROUPS.items():
        about = [(name, re.sub(r"`+", "`", first_sentence(getattr(semdedup, name)))) for name in names]
        yield from [f"## {title}", "", *table("api", about)]
    yield from contents("api", listed)


def command_index(commands: dict[str, click.Command]) -> Iterator[str]:
    """The commands in the order of the work."""
    about = [(name, first_sentence(command).partition(". ")[0]) for name, command in commands.items()]
    yield from [*table("commands", ((name, text.removesuffix(".") + ".") for name, text in about))]
    yield from contents("commands", commands)


def deployment(recipes: Path) -> Iterator[str]:
    """What the recipes say of themselves, without their title, and with links that lead from a page of ours."""
    if not (recipes / "README.md").exists():
        return
    text = (recipes / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\A# .*\n", "", text)
    text = re.sub(r"\]\((?:\.\./docs/)([^)]+)\)", r"](/\1)", text)
    yield re.sub(r"\]\((?![a-z]+:|[#/])([^)]+)\)", r"](../deploy/\1)", text)


def write_pages(folder: Path) -> None:
    """Make all pages; one that says what it did is left alone, so that it is not built again."""
    commands = cli.main.commands
    pages = {f"commands/{name}.rst": command_page(name, commands) for name in commands}
    pages |= {f"api/{name}.rst": name_page(name) for names in GROUPS.values() for name in names}
    pages |= {"commands.md": command_index(commands), "api.md": api_index(), "embedders.md": iter([as_markdown()])}
    pages["deploy.md"] = deployment(folder.parent.parent / "deploy")
    for name, lines in pages.items():
        path, text = folder / name, "\n".join(lines) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in pages:
            path.unlink()


def setup(app: Any) -> dict[str, bool]:
    """Make the pages before Sphinx looks for sources."""
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / "made"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
