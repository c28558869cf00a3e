# SPDX-License-Identifier: MIT
"""``python -m crfseg``, the same as the command ``crfseg``."""

import sys

from crfseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
