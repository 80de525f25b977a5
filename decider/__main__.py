"""`python -m decider`: one decider process."""

from .server import main

raise SystemExit(main())
