"""``python -m lsi``: the command ``lsi``."""

from lsi.cli import main

raise SystemExit(main())
