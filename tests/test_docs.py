"""The README, the pages of the documentation and their like say what is true, and lead where they say."""

import ast
import doctest
import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import distributed
import numpy as np
import pandas as pd
import pytest

import semdedup
from semdedup import cli
from semdedup.cli.config_file import said_in
from semdedup.video.steps.embed.catalogue import KNOWN
from semdedup.video.steps.embed.providers import PROVIDERS
from tests.faults import cluster_inside

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MADE = ("_build", "made")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("deploy/*.md")), *sorted(DOCS.rglob("*.md"))]
    if path.relative_to(ROOT).parts[1:2] not in {(name,) for name in MADE}
}
"""The text of each by its path."""

COMMANDS = "|".join(cli.main.commands)


def code_of(page: str, language: str) -> list[str]:
    """The blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


def test_every_command_is_named_and_every_flag_that_is_named_exists() -> None:
    told = "\n".join(PAGES.values())
    for name in cli.main.commands:
        assert f"semdedup {name}" in told
    known = {flag for command in cli.main.commands.values() for param in command.params for flag in param.opts}
    for page, text in PAGES.items():
        for line in re.findall(rf"semdedup (?:{COMMANDS})\b(?:[^\n`]*\\\n)*[^\n`|]*", text):
            assert set(re.findall(r"(?<!\S)--[a-z][a-z-]+", line)) <= known, f"{page}: {line}"


@pytest.mark.parametrize("page", PAGES)
def test_python_parses_and_names_what_is_public(page: str) -> None:
    for block in code_of(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "semdedup":
                assert {alias.name for alias in node.names} <= set(semdedup.__all__)


def test_the_file_of_settings_is_one(tmp_path: Path) -> None:
    (block,) = code_of("docs/settings-file.md", "yaml")
    (tmp_path / "run.yaml").write_text(block)
    for name in cli.main.commands:
        if name != "config":
            said_in(str(tmp_path / "run.yaml"), name, cli.main.commands)


def test_the_table_of_embedders_knows_those_of_the_code() -> None:
    assert {model.algorithm.split(",")[0] for model in KNOWN} <= set(PROVIDERS)
    named = " ".join(model.algorithm for model in KNOWN)
    for name, provider in PROVIDERS.items():
        assert name in named or name.removeprefix("cosmos-embed1") in named
        measured = [model for model in KNOWN if model.algorithm == name and not model.eps.startswith("not measured")]
        assert bool(measured) == (provider.recommended_eps is not None)


def anchors_of(text: str) -> set[str]:
    """What a link into a page may name: its headings, as GitHub and MyST write them, and labels of its own."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"^\((.+)\)=$", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_exist(page: str) -> None:
    text = re.sub(r"^```(?!\{).*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^```\{include\} (\S+)$", text, re.MULTILINE)
    for target in targets:
        path, _, anchor = target.partition("#")
        if path.startswith(("https://", "http://")) or path.startswith("made/"):
            continue
        place = (ROOT / page).parent / path if path else ROOT / page
        assert place.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors_of(place.read_text(encoding="utf-8")), f"{page}: {target}"


@pytest.mark.parametrize("page", sorted(page for page in PAGES if page.startswith("docs/") and page != "docs/index.md"))
def test_every_page_is_in_the_list_of_contents(page: str) -> None:
    listed = "\n".join(code_of("docs/index.md", r"\{toctree\}"))
    assert page.removeprefix("docs/").removesuffix(".md") in re.sub(r"[<>]", "", listed).split()


def test_the_pictures_show_what_the_rules_say_of_their_rows() -> None:
    spec = importlib.util.spec_from_file_location("draw", DOCS / "pictures" / "draw.py")
    assert spec
    assert spec.loader
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    for name, picture in draw.PICTURES.items():
        assert (DOCS / "pictures" / f"{name}.svg").read_text(encoding="utf-8") == picture(), f"run draw.py for {name}"


@pytest.fixture(scope="module")
def at_hand() -> Iterator[distributed.Client]:
    """A cluster in this process, which examples find as the current one and so do not start one each."""
    with cluster_inside() as client, client.as_current():
        yield client


def run_examples(test: doctest.DocTest) -> None:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
    assert runner.run(test, out=said.append).failed == 0, "".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page, "pycon")])
def test_the_examples_in_pages_do_what_they_show(page: str, at_hand: distributed.Client) -> None:
    names: dict[str, object] = {}
    for i, block in enumerate(code_of(page, "pycon")):
        run_examples(doctest.DocTestParser().get_doctest(block, names, f"{page}, block {i}", page, 0))


ON_FILES = {
    *("VideoDeduplicationWorkflow", "VideoSplitWorkflow", "VideoCaptionWorkflow", "SemanticDeduplicationWorkflow"),
    *("KMeansStage", "PairwiseStage", "IdentifyDuplicatesStage", "CrossStage", "PairsStage", "Pipeline"),
    *("ShardWorkflow", "DedupResult.filter", "Reporter.step", "Record", "clean"),
    *("deduplicate", "estimate", "find_pairs", "find_leaks", "find_overlaps", "calibrate", "semdedup.frames"),
}
"""What shows how it is called on files of the reader: these examples are parsed, and run by other tests as calls."""

EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "semdedup").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.slow
def test_the_examples_in_docstrings_do_what_they_show() -> None:
    passed_over: set[str] = set()
    for name in EXAMPLES:
        module = importlib.import_module(name)
        for test in doctest.DocTestFinder().find(module, name, extraglobs={"np": np, "pd": pd}):
            short = test.name if test.name == name else test.name.removeprefix(f"{name}.")
            if short in ON_FILES and test.examples:
                passed_over.add(short)
                for example in test.examples:
                    ast.parse(example.source)
            elif test.examples:
                run_examples(test)
    assert passed_over == ON_FILES, "these have no examples any more"


def built(builder: str, place: Path) -> subprocess.CompletedProcess[str]:
    options = ("-W", "--keep-going", "-q", "-b", builder, "-d", place / "trees")
    command = [sys.executable, "-m", "sphinx", *options, DOCS, place / builder]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=560, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="Sphinx is not installed: pip install '.[docs]'")
def test_the_documentation_is_built_without_a_warning(tmp_path: Path) -> None:
    done = built("html", tmp_path)
    assert done.returncode == 0, done.stderr
    pages = tmp_path / "html"
    for name, command in cli.main.commands.items():
        page = (pages / "made" / "commands" / f"{name}.html").read_text(encoding="utf-8")
        for param in command.params:
            if not getattr(param, "hidden", False):
                assert all(spelled in page for spelled in param.opts if spelled.startswith("-")), (name, param.opts)
    for name in semdedup.__all__:
        assert f'id="semdedup.{name}"' in (pages / "made" / "api" / f"{name}.html").read_text(encoding="utf-8") or (
            name == "frames"
        ), name
    assert KNOWN[-1].licence in (pages / "embedders.html").read_text(encoding="utf-8")
