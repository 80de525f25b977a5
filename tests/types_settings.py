"""The product's settings as the type checker reads them: no server is started or asked."""

import os

os.environ.setdefault("SLUICE_SECRET_KEY", "only-for-types-" + "0123456789" * 5)
os.environ.setdefault("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
os.environ.setdefault("VALKEY_URL", "redis://127.0.0.1:1/0")

from console.settings import *  # noqa: F403
