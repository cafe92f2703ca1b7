"""New rows against an earlier result, the base: what stands in it, which of its rows are kept, what new ids may be."""
