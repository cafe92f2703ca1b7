"""Which files are videos: by the ending of the name, and where that says nothing by the first bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator

HEAD_BYTES = 4096
"""So many bytes at the beginning of a file tell which container it is."""

EXTENSIONS = (
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".ogv", ".ogm"),
    *(".wmv", ".asf", ".3gp", ".3g2", ".mxf", ".gif", ".vob"),
    *(".qt", ".f4v", ".divx", ".xvid", ".mpe", ".m1v", ".m2v", ".mpv", ".m2t", ".trp"),
)
"""Files with these endings are videos."""

OTHERS = frozenset(
    f".{ending}"
    for kind in (
        "txt md rst log csv tsv json jsonl ndjson yaml yml toml ini cfg conf xml xmp html htm pdf rtf doc docx odt",
        "xls xlsx ods ppt pptx odp tex bib url nfo info lnk gpx kml geojson eaf textgrid",
        "py ipynb js css c cc cpp h hpp rs go java sh bat ps1 sql lock so dll dylib exe class jar whl egg pyc",
        "parquet pq arrow feather avro orc h5 hdf5 npy npz mat pkl pickle pt pth ckpt safetensors onnx tfrecord",
        "tfrecords db sqlite sqlite3 mdb lmdb mcap",
        "jpg jpeg jpe jfif png webp bmp tif tiff heic heif avif jp2 psd svg ico exr dpx hdr pgm ppm thm",
        "cr2 cr3 nef arw dng orf rw2 raf",
        "mp3 wav flac m4a m4b aac oga opus wma aif aiff caf amr ac3 eac3 dts mka mid midi",
        "zip tar gz tgz bz2 tbz xz txz 7z rar zst lz4 lzma cab iso dmg deb rpm torrent",
        "srt vtt ass ssa sub idx sbv ttml dfxp smi lrc mks sup",
        "md5 md5sum sha1 sha256 sha512 sfv crc par2 asc sig",
        "m3u m3u8 mpd pls xspf cue sdp ffconcat edl fcpxml prproj aep ifo bup mpl bdmv clpi cpi",
        "ttf otf woff woff2",
    )
    for ending in kind.split()
)
"""Files with these endings are no videos: text, tables, pictures, sound, archives, subtitles, checksums, playlists."""

BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat"}
"""Boxes by which MP4 and QuickTime are known. Others may stand before them."""
BOXES_BEFORE = {b"wide", b"free", b"skip", b"pnot", b"uuid", b"PICT", b"sidx"}
NO_VIDEO_BRANDS = {
    *(b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif", b"avis", b"crx ", b"jp2 ", b"jpx "),
    *(b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "),
}
"""Brands of pictures and of sound in the same boxes."""

ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
MXF = bytes.fromhex("060e2b34020501010d0102010102")
OGG_VIDEO = (b"\x80theora", b"BBCD\0", b"OVP80", b"\x01video\0\0\0")
"""How tracks of video begin in Ogg: Theora, Dirac, VP8, OGM."""
TS_PACKETS = (188, 192, 204)
"""Bytes of a packet of a transport stream: plain, with times (M2TS), with error correction."""
LEAST_TS_PACKETS = 5


def ending_of(name: str) -> str:
    """The ending of a file name in lower case; empty where it has none that is one.

    >>> ending_of("a/b.MP4"), ending_of("clip"), ending_of("Vol. 3 of them")
    ('.mp4', '', '')
    """
    ending = os.path.splitext(name)[1].lower()
    return ending if len(ending) <= 12 and ending[1:].replace("_", "").replace("-", "").isalnum() else ""


def container_of(head: bytes) -> str | None:
    """The container that a file holds, by its first `HEAD_BYTES`; None where it is none of those that are opened.

    Names are those of `opening.FORMATS`. What holds pictures or sound alone is none where these bytes tell it.
    """
    if _is_mov(head):
        return "mov"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska" if b"matroska" in head or b"webm" in head else None
    if head.startswith(b"RIFF"):
        if head[8:12] == b"CDXA":  # sectors of a Video CD
            return "mpeg" if any(_is_mpeg(head[at:]) for at in _starts(head, b"\0\0\x01\xba")) else None
        return "avi" if head[8:11] == b"AVI" else None
    if _is_mpeg(head):
        return "mpeg"
    if head.lstrip(b"\0").startswith(b"\x01\xb3") and head.startswith(b"\0\0"):
        return "mpegvideo"
    if head.startswith(b"FLV") and head[3:4] < b"\x05" and head[5:8] == b"\0\0\0":
        return "flv"
    if head.startswith(b"OggS"):
        return "ogg" if any(mark in head for mark in OGG_VIDEO) else None
    if head.startswith(ASF):
        return "asf"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if MXF in head:  # a run-in may stand before
        return "mxf"
    return "mpegts" if any(_is_transport_stream(head, size) for size in TS_PACKETS) else None


def _is_mov(head: bytes) -> bool:
    start = 0
    while start + 8 <= len(head):
        size, kind = int.from_bytes(head[start : start + 4], "big"), head[start + 4 : start + 8]
        if kind in BOXES:
            return (size >= 8 or size in (0, 1)) and not (
                kind == b"ftyp" and head[start + 8 : start + 12] in NO_VIDEO_BRANDS
            )
        if kind not in BOXES_BEFORE or not 8 <= size < 1 << 24:  # as in "The free …"
            return False
        start += size
    return start > len(head) or (len(head) >= HEAD_BYTES and start + 8 > len(head))  # the next box is beyond the head


def _is_mpeg(head: bytes) -> bool:
    """Whether a pack of a program stream begins here, of MPEG-2 or MPEG-1."""
    return head.startswith(b"\0\0\x01\xba") and len(head) > 4 and (head[4] & 0xC0 == 0x40 or head[4] & 0xF0 == 0x20)


def _is_transport_stream(head: bytes, size: int) -> bool:
    """Whether there are packets of so many bytes, one after the other, wherever the first one begins."""
    return any(
        len(starts := range(offset, len(head) - 3, size)) >= LEAST_TS_PACKETS
        and all(head[at] == 0x47 and head[at + 3] & 0x30 for at in starts)
        for offset in _starts(head[:size], b"G")
    )


def _starts(head: bytes, mark: bytes) -> Iterator[int]:
    """Where a mark stands."""
    at = head.find(mark)
    while at >= 0:
        yield at
        at = head.find(mark, at + 1)
