"""A run whose workers are jobs of Slurm, which come and go: `python jobqueue.py VIDEOS OUT --jobs 8`.

The script stays where it is started, on a login node or in a job of its own. What the site says once (partition,
account, cores and memory of a job) may stand in ~/.config/dask/jobqueue.yaml. A job that Slurm ends is replaced, and
what it was at is done again by others. Started again after it was ended itself, the run goes on.
"""

import argparse

from dask_jobqueue import SLURMCluster
from distributed import Client

import semdedup


def main() -> None:
    """Ask Slurm for workers, wait for the first, run, and give them back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", help="folder of videos that all nodes see, or in a store")
    parser.add_argument("output", help="folder for what is made of them, likewise")
    parser.add_argument("--jobs", type=int, default=4, help="jobs at a time [4]")
    parser.add_argument("--cores", type=int, default=8, help="workers of a job, of a thread each [8]")
    parser.add_argument("--memory", default="32GiB", help="of a job [32GiB]")
    parser.add_argument("--walltime", default="04:00:00", help="of a job; others follow it [04:00:00]")
    parser.add_argument("--partition", help="where jobs are queued")
    parser.add_argument("--interface", help="network between the workers, such as ib0")
    asked = parser.parse_args()
    with (
        SLURMCluster(
            queue=asked.partition,
            cores=asked.cores,
            processes=asked.cores,
            memory=asked.memory,
            walltime=asked.walltime,
            interface=asked.interface,
        ) as cluster,
        Client(cluster) as client,
    ):
        cluster.adapt(minimum_jobs=asked.jobs, maximum_jobs=asked.jobs)
        client.wait_for_workers(1)  # hours in a full queue; a run itself waits for half a minute
        print(semdedup.VideoDeduplicationWorkflow(asked.videos, asked.output).run(client))


if __name__ == "__main__":
    main()
