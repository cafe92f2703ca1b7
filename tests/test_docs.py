"""The README says what is true."""

import ast
import re
from pathlib import Path

import semdedup
from semdedup import cli
from semdedup.cli.config_file import said_in
from semdedup.video.steps.embed.catalogue import KNOWN, as_markdown
from semdedup.video.steps.embed.providers import PROVIDERS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_every_command_and_every_flag_named_in_the_readme_exists() -> None:
    for name in cli.main.commands:
        assert f"semdedup {name}" in README
    known = {flag for command in cli.main.commands.values() for param in command.params for flag in param.opts}
    names = "|".join(cli.main.commands)
    for line in re.findall(rf"semdedup (?:{names})(?:[^\n]*\\\n)*[^\n]*", README):
        assert set(re.findall(r"--[a-z][a-z-]+", line)) <= known, line


def test_the_python_in_the_readme_parses_and_names_what_is_public() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "semdedup":
                assert {alias.name for alias in node.names} <= set(semdedup.__all__)


def test_the_file_of_settings_in_the_readme_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "run.yaml").write_text(block)
    for name in cli.main.commands:
        if name != "config":
            said_in(str(tmp_path / "run.yaml"), name, cli.main.commands)


def test_the_table_of_embedders_is_the_one_of_the_code() -> None:
    assert as_markdown() in README
    assert {model.algorithm.split(",")[0] for model in KNOWN} <= set(PROVIDERS)
    named = " ".join(model.algorithm for model in KNOWN)
    for name, provider in PROVIDERS.items():
        assert name in named or name.removeprefix("cosmos-embed1") in named
        measured = [model for model in KNOWN if model.algorithm == name and not model.eps.startswith("not measured")]
        assert bool(measured) == (provider.recommended_eps is not None)
