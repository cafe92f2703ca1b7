"""The export of clips: WebDataset shards of those that remain."""
