"""The same as `vggrpo train-lgm`."""

import sys

from vggrpo.cli.main import main

sys.exit(main(["train-lgm", *sys.argv[1:]]))
