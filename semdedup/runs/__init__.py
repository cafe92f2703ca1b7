"""A run of a step in a folder: it begins, goes on where an earlier one stopped, and is committed whole or not at all.

`record` is what a folder holds (``_manifest.json``), `owner` who is at it (``_owner.json``), `at_work` how far that is
(``_progress.json``), which `status` reads, `journal` what its tasks have done, `commit` how finished files get into
place, and `run` puts these together for the steps of the dedup, of the videos and of the shards.
"""
