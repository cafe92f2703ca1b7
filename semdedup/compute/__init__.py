"""Dask: finding or starting a cluster, checking it, and driving tasks through it."""
