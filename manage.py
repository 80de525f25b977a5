#!/usr/bin/env python3
"""Sluice's commands: `manage.py up` starts everything, `manage.py help` lists them."""

from __future__ import annotations

import os
import sys

from django.core.exceptions import ImproperlyConfigured

import installation
import unprivileged


def main() -> None:
    """Run one command. When a setting is wrong, exit with one sentence instead of a traceback."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    try:
        # first: this replaces a process of root, which would lose what it had read or opened
        unprivileged.enter(sys.argv)
        os.environ.setdefault("SLUICE_VAR", str(installation.data_folder()))
        # before Django reads the settings, because they need the addresses and the key made here
        if sys.argv[1:2] == ["up"]:
            from console.local.embedded import prepare_environment

            prepare_environment()
        from console.local import database, embedded

        if sys.argv[1:2] == ["migrate"]:
            embedded.become_owner()
        database.be(database.process_of(sys.argv))
        # imported late, because Django reads the settings from here on
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except (ImproperlyConfigured, installation.InstallationError) as error:
        sys.exit(f"sluice: {error}")


if __name__ == "__main__":
    main()
