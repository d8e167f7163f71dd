"""`python -m masklet`."""

from masklet.cli import main

main()
