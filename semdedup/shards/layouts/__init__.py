"""Layouts of a dataset, a file for each. A new one is a subclass of `ShardLayout` and an entry in `LAYOUTS`."""

from semdedup.shards.layouts.base import ShardLayout
from semdedup.shards.layouts.cosmos import CosmosLayout
from semdedup.shards.layouts.flat import FlatLayout

LAYOUTS: dict[str, ShardLayout] = {layout.name: layout for layout in (FlatLayout(), CosmosLayout())}
