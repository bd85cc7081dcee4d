"""``python -m evproc_pool.cli``, which is ``evproc``."""

import sys

from evproc_pool.cli.start import main

if __name__ == "__main__":
    sys.exit(main())
