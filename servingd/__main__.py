"""`python -m servingd`."""

import sys

from servingd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
