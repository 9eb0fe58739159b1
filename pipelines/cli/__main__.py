"""`python -m pipelines.cli` is the same as `witness`."""

import sys

from pipelines.cli import main

if __name__ == "__main__":
    sys.exit(main())
