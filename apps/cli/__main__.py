"""`python -m apps.cli` is `circuits`."""

import sys

from apps.cli.main import main

sys.exit(main())
