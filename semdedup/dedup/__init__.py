"""From embeddings to duplicates: read, cluster, compare, threshold."""
