"""`python -m decider`: one decider process."""

from decider.node.process import main

raise SystemExit(main())
