"""The WSGI application that gunicorn serves."""

from __future__ import annotations

import os

import django
from django.urls import get_resolver

from console.frame.well_formed import Application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
# as Django's own get_wsgi_application does
django.setup(set_prefix=False)
application = Application()
# imports every view now: that takes four seconds, which would delay the first page
get_resolver().url_patterns  # noqa: B018
