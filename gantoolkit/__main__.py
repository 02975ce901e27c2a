"""`python -m gantoolkit` is the command `gantoolkit`."""

import sys

from gantoolkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
