"""The same as `vggrpo train`."""

import sys

from vggrpo.cli.main import main

sys.exit(main(["train", *sys.argv[1:]]))
