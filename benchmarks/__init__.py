"""Benchmarks: what the dedup costs, beside what the machine can do, measured in one run and printed as ratios.

python -m benchmarks --size quick
"""
