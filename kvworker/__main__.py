"""``python -m kvworker``."""

from kvworker.cli import main

main()
