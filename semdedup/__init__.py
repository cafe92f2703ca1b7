"""Turn videos into a training set without near-duplicates, on Dask, with or without GPUs.

Names are listed in ``__init__.pyi`` and imported when they are first used: the processes that decode need little of
this, and start in a quarter of the time.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("semdedup")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
