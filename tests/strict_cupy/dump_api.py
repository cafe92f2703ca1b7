"""Write ``cupy_api.json``: names, parameters and loops of the CuPy that is installed. Importing it needs no GPU.

In an environment of its own with a wheel of CuPy: ``python dump_api.py``.
"""

import inspect
import json
from pathlib import Path

import cupy
from cupy._core._kernel import ufunc


def description(value):
    if isinstance(value, ufunc):
        return {"kind": "ufunc", "nin": value.nin, "nout": value.nout, "types": value.types}
    if inspect.ismodule(value) or inspect.isclass(value) or not callable(value):
        return {"kind": "module" if inspect.ismodule(value) else "class" if inspect.isclass(value) else "value"}
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return {"kind": "func", "params": None}
    return {
        "kind": "func",
        "params": [(p.name, p.kind.name, p.default is not inspect.Parameter.empty) for p in parameters],
    }


if __name__ == "__main__":
    found = {name: description(getattr(cupy, name)) for name in dir(cupy) if not name.startswith("_")}
    Path(__file__).with_name("cupy_api.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")
