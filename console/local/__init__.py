"""The programs of one machine, which `manage.py up` starts, watches and stops."""
