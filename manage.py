#!/usr/bin/env python3
"""Sluice's commands: `manage.py up` starts everything, `manage.py help` lists them."""

from __future__ import annotations

import os
import sys

from django.core.exceptions import ImproperlyConfigured

import installation
import unprivileged


def main() -> None:
    """Run one command; end in one sentence, without a traceback, when a setting is wrong."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    try:
        # first: root's process is replaced here, and what it had read or opened would be lost
        unprivileged.enter(sys.argv)
        os.environ.setdefault("SLUICE_VAR", str(installation.data_folder()))
        # the settings need addresses and a key, so what `up` makes has to be there before them
        if sys.argv[1:2] == ["up"]:
            from console.local.embedded import prepare_environment

            prepare_environment()
        # imported late, because it reads the settings
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except (ImproperlyConfigured, installation.InstallationError) as error:
        sys.exit(f"sluice: {error}")


if __name__ == "__main__":
    main()
