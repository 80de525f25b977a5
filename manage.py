#!/usr/bin/env python3
"""Runs Sluice's commands; `manage.py up` starts everything, `manage.py help` lists them."""

from __future__ import annotations

import os
import sys

from django.core.exceptions import ImproperlyConfigured

import installation
import unprivileged


def main() -> None:
    """Runs one command. A wrong or missing setting ends in one sentence, never in a traceback."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    try:
        unprivileged.enter(sys.argv)
        os.environ.setdefault("SLUICE_VAR", str(installation.var()))
        if sys.argv[1:2] == ["up"]:
            from console.local.embedded import prepare

            prepare()
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except (ImproperlyConfigured, installation.InstallationError) as error:
        sys.exit(f"sluice: {error}")


if __name__ == "__main__":
    main()
