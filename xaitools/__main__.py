"""``python -m xaitools``."""

from xaitools.cli import main

main()
