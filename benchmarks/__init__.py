"""Benchmarks: what the dedup costs, beside what the machine can do, measured in one run and printed as ratios.

    python -m benchmarks                       # everything, in sizes of minutes
    python -m benchmarks decisions comparison  # some of it

A benchmark is a module with ``SIZES`` (what is measured at ``smoke``, which tests run, at ``quick`` and at ``full``)
and ``run(size)``, which prints what it measures and returns it as values for JSON. One that has ``rows(figures)`` as
well goes into the README's table and the plot. To add one, write the module and name it in ``__main__``.

What they share: `data` and `real_like` make rows, `planted_videos` videos; `limits` says what the machine does with the
least that is needed; `loops` and `peers` are what others do, and `answers` the exact answer that they are held to;
`timing` and `modes` measure one thing beside another in turns, `workers` has clusters and their memory, `measured_run`
a run with every process apart; `table` is the table and the plot.
"""
