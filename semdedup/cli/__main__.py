"""``python -m semdedup.cli``."""

from semdedup.__main__ import main

main()
