"""`python -m facedan_cli`."""

from facedan_cli.cli.app import main

main()
