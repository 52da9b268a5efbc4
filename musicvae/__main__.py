"""`python -m musicvae` is the `musicvae` command."""

import sys

from .cli import main

sys.exit(main())
