"""The page on licences: of every package that an installation brings, and of the libraries inside their wheels."""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs.release.page import ROOT, put

PAGE = ROOT / "docs" / "licences.md"
BASE = ""
OF_DEVELOPERS = ("bench", "deploy", "dev", "docs", "test", "test-core")
"""Extras that no user needs."""

FFMPEG = "as FFmpeg says, above"
LIBRARIES = {
    "libaom": "BSD-2-Clause, and the patent licence of AOM",
    "libcrc32c": "BSD-3-Clause",
    "libcudart": "NVIDIA's terms for CUDA",
    "libcrypto": "Apache-2.0 from version 3 on, else OpenSSL",
    "libnvjpeg": "NVIDIA's terms for CUDA",
    "libopenblas": "BSD-3-Clause",
    "libssl": "Apache-2.0 from version 3 on, else OpenSSL",
    "libSvtAv1Enc": "BSD-3-Clause-Clear, and the patent licence of AOM",
    "libXau": "MIT",
    "libasound": "LGPL-2.1-or-later",
    "libavif": "BSD-2-Clause",
    "libav": FFMPEG,
    "libbrotli": "MIT",
    "libdav1d": "BSD-2-Clause",
    "libdrm": "MIT",
    "libfreetype": "FTL OR GPL-2.0-or-later",
    "libgfortran": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libgmp": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "libgnutls": "LGPL-2.1-or-later",
    "libgomp": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libharfbuzz": "MIT",
    "libhogweed": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "libjpeg": "IJG AND BSD-3-Clause AND Zlib",
    "liblcms2": "MIT",
    "liblzma": "0BSD",
    "libmp3lame": "LGPL-2.0-or-later",
    "libnettle": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "libopencore-amr": "Apache-2.0",
    "libopenjp2": "BSD-2-Clause",
    "libopus": "BSD-3-Clause",
    "libpng": "libpng-2.0",
    "libquadmath": "LGPL-2.1-or-later",
    "libscipy_openblas": "BSD-3-Clause",
    "libsharpyuv": "BSD-3-Clause",
    "libsw": FFMPEG,
    "libtiff": "libtiff",
    "libunistring": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "libvpl": "MIT",
    "libvpx": "BSD-3-Clause",
    "libwebp": "BSD-3-Clause",
    "libx264": "**GPL-2.0-or-later**",
    "libx265": "**GPL-2.0-or-later**",
    "libxcb": "MIT",
    "libz": "Zlib",
    "libzstd": "BSD-3-Clause OR GPL-2.0-only",
}
"""Licences of libraries inside wheels, by the beginning of their names, as their projects state them: wheels do not."""

UNKNOWN = "not known to this page"


@dataclass
class Package:
    """What is known of a package that is installed.

    Attributes:
        name: of the distribution.
        version: of it.
        licence: what its metadata state.
        libraries: shared libraries of others in its wheel.
        asked_by: whose requirement it is.
    """

    name: str
    version: str
    licence: str
    libraries: list[str]
    asked_by: list[str] = field(default_factory=list)


def declared() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """Requirements of the package, and of its extras for users."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    of_users = {name: list(map(Requirement, asked)) for name, asked in extras.items() if name not in OF_DEVELOPERS}
    return list(map(Requirement, project["dependencies"])), of_users


def licence(found: Distribution) -> str:
    """What the metadata state: an expression, a short text, or classifiers."""
    told = found.metadata
    short = "".join(told.get_all("License") or ()).strip()
    classes = [one.rpartition(" :: ")[2] for one in told.get_all("Classifier") or () if one.startswith("License ::")]
    if expression := told.get_all("License-Expression"):
        return str(expression[0])
    if short and "\n" not in short and len(short) <= 60 and short != "Dual License":
        return short
    return " or ".join(one for one in classes if one != "OSI Approved") or "see its licence file"


def libraries(found: Distribution) -> list[str]:
    """Names of the shared libraries that tools have put into a wheel, without version and hash."""
    inside = (file for file in found.files or () if file.parts[0].endswith(".libs") or ".dylibs" in file.parts)
    return sorted({re.split(r"[-.][0-9a-f]{8}|\.so|\.\d|\.dylib|\.dll", file.name)[0] for file in inside})


def licence_of(library: str) -> str:
    """By the longest beginning of its name that is known."""
    known = max((name for name in LIBRARIES if library.startswith(name)), key=len, default=None)
    return LIBRARIES[known] if known else UNKNOWN


def closure(asked: Sequence[Requirement], by: str) -> tuple[dict[str, Package], list[str]]:
    """Every package that requirements bring here, and those that are not installed."""
    found: dict[str, Package] = {}
    absent: list[str] = []
    todo = [(requirement, by) for requirement in asked]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement, who = todo.pop(0)
        name = canonicalize_name(requirement.name)
        if name == "semdedup" or not _applies(requirement, ()):
            continue
        try:
            there = distribution(name)
        except PackageNotFoundError:
            absent.append(name)
            continue
        if name not in found:
            found[name] = Package(name, there.version, licence(there), libraries(there))
        if who not in found[name].asked_by:
            found[name].asked_by.append(who)
        key = (name, frozenset(requirement.extras))
        if key not in seen:
            seen.add(key)
            further = map(Requirement, there.requires or ())
            todo += [(_bare(one), name) for one in further if _applies(one, tuple(requirement.extras))]
    return found, sorted(set(absent))


def _bare(requirement: Requirement) -> Requirement:
    """Without its marker, which was looked at."""
    return Requirement(
        f"{requirement.name}[{','.join(requirement.extras)}]" if requirement.extras else requirement.name
    )


def _applies(requirement: Requirement, extras: Sequence[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def installed() -> tuple[dict[str, dict[str, Package]], dict[str, list[str]]]:
    """Packages by what brings them, the base and then each extra beyond it; and those that are not installed here."""
    base, extras = declared()
    found, absent = closure(base, "semdedup")
    if absent:
        raise ModuleNotFoundError(f"not installed here: {', '.join(absent)}; run `pip install .` first")
    brought, lacking = {BASE: found}, {}
    for extra, asked in extras.items():
        more, lacking[extra] = closure(asked, f"the extra {extra}")
        brought[extra] = {name: package for name, package in more.items() if name not in found}
    return brought, lacking


def packages(brought: Mapping[str, Mapping[str, Package]], lacking: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The table of what an installation brings, then of the extras."""
    for name, found in brought.items():
        yield "### Of `pip install .`\n" if name == BASE else f"### Of the extra `{name}`\n"
        if found:
            yield "| package | version | licence by its metadata | asked for by | libraries in its wheel |"
            yield "| --- | --- | --- | --- | --- |"
        for one in sorted(found.values(), key=lambda package: package.name):
            cells = one.name, one.version, one.licence, ", ".join(one.asked_by), str(len(one.libraries) or "")
            yield f"| {' | '.join(cells)} |"
        if found:
            yield ""
        if lacking.get(name):
            yield f"Not installed where this page was made, and not read: {', '.join(lacking[name])}.\n"


def bundled(brought: Mapping[str, Mapping[str, Package]]) -> Iterator[str]:
    """The libraries inside the wheels, each with its licence."""
    by_library: dict[str, set[str]] = {}
    for found in brought.values():
        for package in found.values():
            for library in package.libraries:
                by_library.setdefault(library, set()).add(package.name)
    yield "| library | licence of its project | in the wheel of |"
    yield "| --- | --- | --- |"
    for library, wheels in sorted(by_library.items(), key=lambda item: item[0].lower()):
        yield f"| {library} | {licence_of(library)} | {', '.join(sorted(wheels))} |"


def ffmpeg(brought: Mapping[str, Mapping[str, Package]]) -> Iterator[str]:
    """What each FFmpeg inside a wheel says of itself, in its library."""
    for found in brought.values():
        for package in found.values():
            if "libavcodec" in package.libraries:
                yield f"- {package.name} {package.version}: {_of_codecs(distribution(package.name))}"


def _of_codecs(wheel: Distribution) -> str:
    file = next(file for file in wheel.files or () if "libavcodec" in file.name)
    held = Path(str(wheel.locate_file(file))).read_bytes()
    says = re.search(rb"libavcodec license: ([ -~]+)", held)
    asked = re.search(rb"--[a-z][ -~]*--enable-[ -~]*", held)
    if not says or not asked:
        raise ValueError(f"{file} does not tell of its licence: {says}, {asked}")
    with_ = re.findall(r"--enable-(\S+)", asked[0].decode())
    return f'"{says[1].decode()}", built with {", ".join(with_)}'


def write() -> int:
    """Make the parts of the page that are read off what is installed."""
    brought, lacking = installed()
    made = list(bundled(brought))
    put(PAGE, "packages", packages(brought, lacking))
    put(PAGE, "bundled", made)
    put(PAGE, "ffmpeg", ffmpeg(brought))
    unknown = [line for line in made if UNKNOWN in line]
    print(f"{PAGE.relative_to(ROOT)}: {len(made) - 2} libraries", *unknown, sep="\n  ", file=sys.stdout)
    return 1 if unknown else 0
