"""The product's settings, read after the servers they name were started.

With SLUICE_TESTS=fast no server is started: the addresses lead nowhere, and `tests/conftest.py`
keeps the tests that need one out of the run.
"""

import os

from tests import servers

if os.environ.get("SLUICE_TESTS") == "fast":
    servers.name_none()
else:
    servers.start()

from console.settings import *  # noqa: F403
