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
from decider.store_users.roles import Role
from tests.database import BE_OWNER

# a test is one transaction, also while it waits for processes that it starts
DATABASES["default"]["OPTIONS"]["options"] += " -c idle_in_transaction_session_timeout=900s"  # noqa: F405
# The superuser, who at once becomes the app: tests run as programs do, and `tests.database` lets
# one be somebody else within a transaction. Whoever makes the test database is the owner first.
if os.environ.get("SLUICE_TESTS") != "fast" and (_server := servers.postgres()):
    DATABASES["default"] |= {"USER": _server.user, "PASSWORD": _server.password}  # noqa: F405
    DATABASES["default"]["OPTIONS"]["options"] += BE_OWNER  # noqa: F405
# who may do everything hides what a role may not
VALKEY_URL = servers.store_url(Role.OPERATOR)
CELERY_BROKER_URL = servers.store_url(Role.WORKER)
