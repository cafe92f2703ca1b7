"""A run on machines of a cloud that Coiled starts and ends: `python run.py s3://bucket/videos s3://bucket/semdedup`.

The machines take the image of deploy/container, from a registry that they reach; semdedup, Dask and Python here must be
those of the image. (Coiled would install the packages of this environment by their names, and semdedup of PyPI is
another package.) Machines that the cloud takes back are replaced, and what they were at is done again.
"""

import argparse

import coiled
from distributed import Client

import semdedup


def main() -> None:
    """Start machines, run, and end them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", help="folder of videos in a store")
    parser.add_argument("output", help="folder for what is made of them, likewise")
    parser.add_argument("--image", default="registry.example.com/semdedup:latest", help="what the machines run")
    parser.add_argument("--machines", type=int, default=10, help="at most [10]")
    parser.add_argument("--region", help="that of the store")
    asked = parser.parse_args()
    with (
        coiled.Cluster(
            name="semdedup",
            container=asked.image,
            n_workers=asked.machines,
            worker_cpu=8,
            worker_memory="32GiB",
            spot_policy="spot_with_fallback",
            idle_timeout="20 minutes",
            region=asked.region,
        ) as cluster,
        Client(cluster) as client,
    ):
        print(semdedup.VideoDeduplicationWorkflow(asked.videos, asked.output).run(client))


if __name__ == "__main__":
    main()
