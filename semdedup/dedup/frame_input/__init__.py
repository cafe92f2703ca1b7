"""Frames in place of files: from what a caller holds to Parquet in the scratch folder of a run."""
