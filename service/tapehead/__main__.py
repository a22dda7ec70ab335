"""`python -m tapehead` is the command `tapehead`."""

from __future__ import annotations

import sys

from tapehead.cli import main

if __name__ == "__main__":
    sys.exit(main())
