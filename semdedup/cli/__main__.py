"""``python -m semdedup.cli``."""

from semdedup.cli import main

main()
