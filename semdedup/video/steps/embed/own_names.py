"""Whether the Python code that a model brings was written for the transformers that is installed. Runs none of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from semdedup.errors import ParameterError
from semdedup.video.steps.embed.json_file import read_json

SETTINGS = ("config.json", "processor_config.json", "preprocessor_config.json")


def code_in(folder: Path) -> bool:
    """Whether settings of the model name Python code beside them."""
    return any("auto_map" in read_json(folder / name) for name in SETTINGS)


def check_own_names(folder: Path) -> None:
    """Refuse code that imports names which the installed transformers does not have.

    Cosmos-Embed1 and InternVideo2 are known for it: their code is of before transformers 5. Looked at is what a
    module imports when it is loaded, and not what stands in ``try`` or ``if``. Neither the code nor transformers is
    imported.

    Raises:
        ParameterError: naming the file, the names and the versions.
    """
    gone = list(dict.fromkeys(_names_gone(folder)))
    if gone:
        file, module, name = gone[0]
        more = f", and {len(gone) - 1} more names" if len(gone) > 1 else ""
        raise ParameterError(
            f"the code of the model in {folder} ({file}) imports {name} of {module}{more}, which transformers "
            f"{_version()}, installed here, does not have: it was written for another version. {ADVICE}"
        )


ADVICE = "For code of before transformers 5, install 'transformers<5' here and on every worker."


def advice_on_own_code(folder: Path) -> str:
    """What to add to the error of a model that failed to load: empty, or the version that its code may need."""
    found = _version()
    if not folder.is_dir() or not code_in(folder) or found.split(".")[0] in ("4", ""):
        return ""
    return f". It brings its own code, and transformers here is {found}. {ADVICE}"


def _version() -> str:
    try:
        return version("transformers")
    except PackageNotFoundError:
        return ""


def _modules_named(folder: Path) -> set[str]:
    found: set[str] = set()
    for name in SETTINGS:
        named = read_json(folder / name).get("auto_map")
        for value in named.values() if isinstance(named, dict) else []:
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    found.add(text.rsplit("--", 1)[-1].split(".")[0])
    return found


def _names_gone(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(file, module of transformers, name) of each import that cannot be, in what the settings name and imports."""
    waiting, seen = sorted(_modules_named(folder)), set[str]()
    while waiting:
        name = waiting.pop()
        path = folder / f"{name}.py"
        if name in seen or not path.is_file():
            continue
        seen.add(name)
        for statement in _statements(path):
            if not isinstance(statement, ast.ImportFrom) or not statement.module:
                continue
            if statement.level:
                waiting.append(statement.module.split(".")[0])
            elif statement.module.startswith("transformers."):
                for alias in statement.names:
                    if not _is_there(statement.module, alias.name):
                        yield path.name, statement.module, alias.name


def _statements(path: Path) -> list[ast.stmt]:
    try:
        return ast.parse(path.read_text(encoding="utf-8", errors="replace")).body
    except (SyntaxError, ValueError):
        return []  # told when it is loaded


def _is_there(module: str, name: str) -> bool:
    """Whether a module of transformers binds a name; yes where that cannot be told without running it."""
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        return True
    path = Path(spec.origin).parent.joinpath(*module.split(".")[1:])
    if path.is_dir():
        return True  # a package, whose names are made when they are asked for
    path = path.with_suffix(".py")
    if not path.is_file():
        return False
    bound = set(_bound(_statements(path)))
    return name in bound or "*" in bound or "__getattr__" in bound


def _bound(statements: list[ast.stmt]) -> Iterator[str]:
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.split(".")[0] for alias in statement.names)
        else:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id
                elif isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
                    yield from _bound([node])
