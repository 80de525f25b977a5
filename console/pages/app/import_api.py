"""Imports of apps over REST: a few thousand at a time; `manage.py apps import` takes any number."""

from __future__ import annotations

import hashlib
import logging

from celery import current_app
from drf_spectacular.utils import extend_schema
from kombu.exceptions import OperationalError as BrokerError
from rest_framework import serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import Flag, Text
from console.frame.people import person
from console.pages.approvals.api import ApprovalOut
from control.audit import chain
from control.audit.actors import Actor
from control.config import requested
from control.config.gate import NeedsSecondPerson
from control.directory import app_import, app_rows
from control.directory.app_import import Imported
from control.directory.app_rows import BadRows

log = logging.getLogger(__name__)

# Apps of a request. Chosen: they are stored and told within two seconds.
MOST = 10_000
# Characters of a request's rows: MOST lines of usual length.
LONGEST = 2_000_000


class ImportIn(serializers.Serializer[object]):
    """Apps to add or change, as the rows of a file."""

    format = serializers.ChoiceField(["csv", "jsonl"])
    rows = Text(
        max_length=LONGEST,
        trim_whitespace=False,
        help_text="CSV, of which the first line names columns, or JSON Lines, with "
        f"{', '.join(app_rows.COLUMNS)}. What a row leaves out stays as it is; a new app needs"
        f" tenant and tier. At most {MOST:,} apps.",
    )
    make_tenants = Flag(
        default=False, help_text="Add the tenants that there are not, with their id for a name."
    )
    dry_run = Flag(default=False, help_text="Check and count, but keep nothing.")
    reason = Text(
        max_length=chain.REASON_MAX, help_text="Where they are from; kept in the audit log."
    )


class ImportOut(serializers.Serializer[Imported]):
    """What an import did."""

    number = serializers.IntegerField()
    added = serializers.IntegerField()
    changed = serializers.IntegerField()
    same = serializers.IntegerField(help_text="Apps that were stored just so already.")
    tenants = serializers.IntegerField(help_text="Tenants that were added.")


class AppImports(APIView):
    """Many apps at once."""

    permission = "control.import_apps"

    @extend_schema(
        operation_id="apps_import", request=ImportIn, responses={200: ImportOut, 201: ImportOut}
    )
    def post(self, request: Request) -> Response:
        """Add and change apps, all or none of them. Deciders know them within seconds. 202: it
        needs a second person, and is asked for; send the same rows again once it was approved.
        """
        given = ImportIn(data=request.data)
        given.is_valid(raise_exception=True)
        user, reason = person(request), given.validated_data["reason"]
        raw = given.validated_data["rows"].encode()
        try:
            rows = app_rows.read(raw.splitlines(keepends=True), given.validated_data["format"])
            if len(rows) > MOST:
                raise BadRows([app_rows.Fault(0, f"These are {len(rows):,} apps: send {MOST:,}.")])
            done = app_import.import_apps(
                rows,
                by=Actor.of(user),
                reason=reason,
                digest=hashlib.sha256(raw).hexdigest(),
                make_tenants=given.validated_data["make_tenants"],
                dry_run=given.validated_data["dry_run"],
            )
        except NeedsSecondPerson as held:
            made = requested.ask(held, by=user, reason=reason)
            return Response(ApprovalOut(made).data, status=status.HTTP_202_ACCEPTED)
        except BadRows as error:
            raise ValidationError({"rows": [str(fault) for fault in error.faults]}) from error
        if given.validated_data["dry_run"]:
            return Response(ImportOut(done).data)
        _tell(done.number)
        return Response(ImportOut(done).data, status=status.HTTP_201_CREATED)


def _tell(number: int) -> None:
    """Have a worker tell deciders: the console itself may not write profiles. Without a broker
    nothing is lost, as a task looks for imports that were not told.
    """
    try:
        current_app.send_task("control.tasks.publish_import", [number], retry=False)
    except BrokerError as error:
        log.warning("The broker did not take import %d (%s); it is told later.", number, error)
