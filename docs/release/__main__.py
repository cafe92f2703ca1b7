"""Pages of the documentation: ``python -m docs.release licences``, ``python -m docs.release trust [JUNIT.xml …]``."""

import argparse
import sys
from pathlib import Path

from docs.release import licences, trust


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.release", description=__doc__)
    pages = parser.add_subparsers(dest="page", required=True)
    pages.add_parser("licences", help="docs/licences.md, of the wheels that are installed here")
    of_trust = pages.add_parser("trust", help="docs/trust.md, with the figures of a run of the tests")
    of_trust.add_argument(
        "reports",
        nargs="*",
        type=Path,
        metavar="JUNIT.xml",
        help="what pytest --junitxml wrote, later ones count; without any the tests are run, slow ones too",
    )
    of_trust.add_argument("--commit", help="of which the reports are; that of this checkout by default")
    told = parser.parse_args()
    return licences.write() if told.page == "licences" else trust.write(told.reports, told.commit)


if __name__ == "__main__":
    sys.exit(main())
