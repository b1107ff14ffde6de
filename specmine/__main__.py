"""python -m specmine"""

import sys

from specmine.cli import main

if __name__ == "__main__":
    sys.exit(main())
