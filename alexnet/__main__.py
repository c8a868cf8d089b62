import sys

from alexnet.cli import main

if __name__ == "__main__":  # the workers of `batch --engine dask` import this file again
    sys.exit(main())
