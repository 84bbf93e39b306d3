"""python -m neurocanvas."""

from neurocanvas.cli import main

main()
