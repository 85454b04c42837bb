"""The command line, run by `python -m unrolled`."""

import sys

from unrolled.cli import main

sys.exit(main())
