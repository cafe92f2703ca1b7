"""What a release says of itself: its version, its licences, what is promised, and how to get what is missing."""

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs.release import licences, trust
from docs.release.page import part
from docs.release.promises import PROMISES, Promise
from semdedup.extras import pip_install

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_the_first_of_the_changelog_and_stands_in_one_place() -> None:
    headings = re.findall(r"^## (\S+)(?: - (\d{4}-\d{2}-\d{2}))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0][0] == PROJECT["version"]
    assert all(day for _, day in headings)
    told = [path for path in (ROOT / "semdedup").rglob("*.py") if f'"{PROJECT["version"]}"' in path.read_text("utf-8")]
    assert told == []


# What is missing


def test_messages_name_the_packages_of_an_extra_and_not_a_name_that_an_index_may_not_know() -> None:
    assert pip_install("plot") == "pip install 'matplotlib>=3.9'"
    assert pip_install("scenes", "timm") == "pip install 'scenedetect-headless[pyav]<0.8,>=0.7' timm"
    own = pip_install("test")  # of this extra others are parts
    assert "matplotlib" in own
    assert "semdedup" not in own


def test_extras_that_are_named_exist_and_no_text_asks_an_index_for_semdedup() -> None:
    code = list((ROOT / "semdedup").rglob("*.py"))
    for path in (*code, ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb")):
        assert not re.search(r"pip install '?semdedup", path.read_text(encoding="utf-8")), path
    asked = re.findall(r"pip_install\([\"'](\w+)[\"']", "".join(path.read_text(encoding="utf-8") for path in code))
    assert asked
    assert set(asked) <= set(PROJECT["optional-dependencies"])


# Licences


def test_everything_that_is_asked_for_stands_on_the_page_of_licences() -> None:
    page = part(licences.PAGE, "packages")
    for asked in PROJECT["dependencies"]:
        assert re.search(rf"^\| {canonicalize_name(Requirement(asked).name)} \| \d", page, re.MULTILINE), asked
    extras = {name for name in PROJECT["optional-dependencies"] if name not in licences.OF_DEVELOPERS}
    assert set(re.findall(r"### Of the extra `(\w+)`", page)) == extras
    for extra in extras:
        for asked in PROJECT["optional-dependencies"][extra]:
            name = canonicalize_name(Requirement(asked).name)
            assert name == "semdedup" or re.search(rf"^\| {name} \||not read: .*\b{name}\b", page, re.MULTILINE), asked


def test_every_library_on_the_page_has_a_licence_and_x264_its_own() -> None:
    assert licences.UNKNOWN not in licences.PAGE.read_text(encoding="utf-8")
    assert licences.licence_of("libx264") == "**GPL-2.0-or-later**"
    assert licences.licence_of("libavif") != licences.licence_of("libavutil")
    assert licences.licence_of("libnobody") == licences.UNKNOWN


def test_licences_are_read_off_what_is_installed() -> None:
    found, absent = licences.closure([Requirement("av"), Requirement("dask[dataframe]"), Requirement("nobody")], "me")
    assert absent == ["nobody"]
    assert found["av"].licence == "BSD-3-Clause"
    assert found["pandas"].asked_by == ["dask"], "an extra of a package brings packages"
    assert "partd" in found


# Promises

TESTS = {name: promise for promises in PROMISES.values() for promise in promises for name in promise.tests}


@functools.cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_has_tests_and_these_exist() -> None:
    for promises in PROMISES.values():
        assert all(promise.tests for promise in promises)
    for name in TESTS:
        file, _, function = name.partition("::")
        assert function in functions_of(file), name


def test_the_page_has_every_promise_as_it_is_tested_and_no_test_of_it_failed() -> None:
    page = part(trust.PAGE, "promises")
    for promises in PROMISES.values():
        for promise in promises:
            assert f"| {promise.says} | {trust.how(promise)} |" in page, "make it anew: python -m docs.release trust"
    assert not re.search(r"\d failed\*\*", page)
    assert re.search(r"Last run: \d{4}-\d{2}-\d{2}, commit `[0-9a-f]{7,}`", part(trust.PAGE, "summary"))


REPORT = """<testsuites><testsuite timestamp="{day}T22:25:00">
<testcase classname="tests.test_a" name="test_one[1]" time="1.5"/><testcase classname="tests.test_a" name="test_one[2]"
time="0.5"/><testcase classname="tests.test_a" name="test_two" time="0.1">{two}</testcase></testsuite></testsuites>"""


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("", "", "3 passed in 2.1 s; 1 not run"),
        ('<failure message="x"/>', "", "3 passed in 2.1 s; 1 not run"),
        ("", '<failure message="x"/>', "2 passed in 2.0 s; **1 failed**; 1 not run"),
        ("", '<skipped message="no | GPU"/>', "3 passed in 2.1 s; 1 not run"),
        (
            '<skipped message="no GPU"/>',
            '<skipped message="no GPU"/>',
            "2 passed in 2.0 s; 1 skipped: no GPU; 1 not run",
        ),
    ],
)
def test_figures_are_those_of_the_last_run_of_each_test(first: str, second: str, expected: str, tmp_path: Path) -> None:
    for number, two in enumerate((first, second)):
        (tmp_path / f"{number}.xml").write_text(REPORT.format(day=f"2026-11-2{number}", two=two))
    run, day = trust.read([tmp_path / "0.xml", tmp_path / "1.xml"])
    promise = Promise("", "", ("test_a::test_one", "test_a::test_two", "test_b::test_three"))
    assert trust.told(promise.tests, run) == expected
    assert day == "2026-11-21"
