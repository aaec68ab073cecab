"""`python -m vggrpo`."""

import sys

from vggrpo.cli.main import main

sys.exit(main())
