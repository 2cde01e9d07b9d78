"""`python -m casfs` is the `casfs` command."""

import sys

from casfs.cli.main import main

sys.exit(main())
