"""From videos to clips and embeddings. `workflow` is where to begin, `plan` the arithmetic, `split` one video."""
