"""The Django project: settings, addresses, background work, roles, pages, REST API and
`manage.py up`.
"""

from console.celery import app as celery_app

__all__ = ["celery_app"]
