"""`python -m training.official`: see `training.official.run`."""

import sys

from training.official.run import main

if __name__ == "__main__":
    sys.exit(main())
