"""The Django project: settings, addresses, background work, roles, the pages around the rooms,
`manage.py up`.
"""

from console.celery import app as celery_app

__all__ = ["celery_app"]
