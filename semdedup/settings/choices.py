"""Settings that take one of a few words: the words, as types that a type checker can hold a caller to."""

from typing import Literal

BackendChoice = Literal["auto", "cpu", "gpu"]
ClipIdScheme = Literal["semdedup", "nemo", "cosmos"]
Cut = Literal["reencode", "copy"]
DatasetLayout = Literal["flat", "cosmos"]
DistanceMetric = Literal["cosine", "l2"]
DropWhen = Literal["either", "both"]
EmbeddingEncoding = Literal["fp16_bits"]
ExportFormat = Literal["hf", "lance", "parquet"]
Init = Literal["k-means++", "k-means||", "scalable-k-means++", "random"]
InputFiletype = Literal["parquet", "jsonl"]
KMeansEngine = Literal["auto", "cuml", "lloyd"]
RemovalRule = Literal["any", "witness", "components"]
SplittingAlgorithm = Literal["fixed_stride", "scene"]
Tonemap = Literal["sdr"]
TranscodeEncoder = Literal["auto", "libx264", "libopenh264", "h264_nvenc", "libvpx-vp9", "libsvtav1"]
WhichToKeep = Literal["best", "hard", "easy", "soft", "random"]
