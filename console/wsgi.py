"""The WSGI application that gunicorn serves."""

from __future__ import annotations

import os

import django
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import get_resolver

from console.frame.well_formed import Application
from control.database_roles.own_role import DatabaseRoleError, check_role
from control.database_roles.roles import DatabaseRole
from decider.store_users.own_user import StoreUserError, check_user
from decider.store_users.roles import Role

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
# as Django's own get_wsgi_application does
django.setup(set_prefix=False)
application = Application()
try:
    check_user(settings.VALKEY_URL, Role.CONSOLE)
    check_role(settings.DATABASE_URL, DatabaseRole.APP)
except (StoreUserError, DatabaseRoleError) as error:
    # gunicorn ends with this: it starts no second worker that would fail alike
    raise ImproperlyConfigured(str(error)) from error
# imports every view now: that takes four seconds, which would delay the first page
get_resolver().url_patterns  # noqa: B018
