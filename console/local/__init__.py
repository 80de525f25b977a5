"""All programs of one machine: what `manage.py up` starts, watches and stops."""
