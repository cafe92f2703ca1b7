"""Turn videos into a training set without near-duplicates, on Dask, with or without GPUs.

Names are listed in ``__init__.pyi`` and imported when they are first used: the processes that decode need little of
this, and start in a quarter of the time.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("semdedup")
