"""`semdedup shard`: the clips that remain, as WebDataset shards."""
