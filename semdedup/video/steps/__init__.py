"""Steps on a clip: each looks at a clip and gives facts, a vector, or the verdict that it is left out."""
