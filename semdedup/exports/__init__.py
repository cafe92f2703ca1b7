"""What remains of a result, in the formats that others read: Hugging Face, Lance, Parquet."""
