"""The Celery app: background work of every room, with Valkey as its broker."""

from __future__ import annotations

import os
import sys

from celery import Celery
from celery.signals import worker_init
from django.conf import settings

from console.local import database
from control.database_roles.own_role import DatabaseRoleError, check_role
from control.database_roles.roles import DatabaseRole
from decider.store_users.own_user import StoreUserError, check_user
from decider.store_users.roles import Role

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")

app = Celery("sluice")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


# celery has no types
@worker_init.connect  # type: ignore[untyped-decorator]
def refuse_all_powerful_user(**_: object) -> None:
    """End a worker who may do everything in Valkey, or too much in PostgreSQL, before it takes a
    task.
    """
    try:
        check_user(app.conf.broker_url, Role.WORKER)
        check_role(settings.DATABASE_URL, DatabaseRole.APP)
    except (StoreUserError, DatabaseRoleError) as error:
        # exits even inside a signal, whose other errors Celery only logs
        sys.exit(f"worker: {error}")


# celery has no types
@worker_init.connect  # type: ignore[untyped-decorator]
def wait_as_a_worker(**_: object) -> None:
    """Give this process's connections to PostgreSQL the limits of a worker, before a task opens
    one.
    """
    database.be(database.Process.WORKER)
