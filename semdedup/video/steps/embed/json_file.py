"""A JSON file beside a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from semdedup.errors import InputError


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file with an object; empty where there is no file.

    Raises:
        InputError: it holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object; found {type(content).__name__}")
    return content
