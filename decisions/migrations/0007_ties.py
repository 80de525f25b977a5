"""Verdicts from disputes only, weights with a cap, receipts, and the app of each outcome.

Rows that the new rules would refuse stay as they are (the constraints are not validated): outcomes
are never rewritten. Verdicts among them that no dispute gave are counted by nothing
(`decisions.models.outcome.REAL`).
"""

from pathlib import Path

import django.db.models.deletion
from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models

RESOURCES = Path(__file__).resolve().parent.parent / "resources"


class Migration(migrations.Migration):

    dependencies = [
        ('decisions', '0006_buried'),
    ]

    operations = [
        migrations.AddField(
            model_name='outcome',
            name='receipt',
            field=models.CharField(blank=True, db_default='', default='', max_length=300),
        ),
        migrations.AddIndex(
            model_name='outcome',
            index=models.Index(fields=['-stored_at', '-id'], name='outcome_stored'),
        ),
        migrations.RemoveConstraint(model_name='outcome', name='outcome_is_about_something'),
        migrations.AddConstraint(
            model_name='outcome',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('app', ''), _negated=True), models.Q(('token_digest', ''), _negated=True), models.Q(('request_id', ''), _negated=True), ('decision__isnull', False), models.Q(('receipt', ''), _negated=True), _connector='OR'), name='outcome_is_about_something'),
        ),
        migrations.RemoveConstraint(model_name='outcome', name='outcome_weight_in_range'),
        AddConstraintNotValid(
            model_name='outcome',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('weight__gt', 0), ('weight__lte', 1000.0)), models.Q(('source', 'dispute'), ('weight__gt', 0), ('weight__lte', 1000000000.0)), _connector='OR'), name='outcome_weight_capped'),
        ),
        AddConstraintNotValid(
            model_name='outcome',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('kind__in', ('false_throttle', 'correct_refusal')), ('source', 'dispute')), models.Q(models.Q(('kind__in', ('false_throttle', 'correct_refusal')), _negated=True), models.Q(('source', 'dispute'), _negated=True)), _connector='OR'), name='outcome_verdict_from_dispute'),
        ),
        migrations.CreateModel(
            name='OutcomeTie',
            fields=[
                ('outcome', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='tie', serialize=False, to='decisions.outcome')),
                ('app', models.TextField(blank=True)),
                ('decision', models.UUIDField(blank=True, null=True)),
                ('state', models.CharField(choices=[('tied', 'Tied'), ('unknown', 'Unknown'), ('several', 'Several apps')], max_length=16)),
                ('how', models.CharField(blank=True, choices=[('app', 'app id'), ('decision', 'decision'), ('receipt', 'receipt'), ('earlier', 'an earlier version'), ('request', 'request id'), ('token', 'token digest')], max_length=16)),
                ('occurred_at', models.DateTimeField()),
                ('since', models.DateTimeField()),
                ('tries', models.PositiveIntegerField(default=1)),
                ('next_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'db_table': 'decisions_outcometie',
                'default_permissions': (),
            },
        ),
        migrations.AddIndex(
            model_name='outcometie',
            index=models.Index(fields=['app', '-occurred_at'], name='tie_app'),
        ),
        migrations.AddIndex(
            model_name='outcometie',
            index=models.Index(condition=models.Q(('decision__isnull', False)), fields=['decision'], name='tie_decision'),
        ),
        migrations.AddIndex(
            model_name='outcometie',
            index=models.Index(condition=models.Q(('next_at__isnull', False)), fields=['next_at'], name='tie_due'),
        ),
        migrations.AddIndex(
            model_name='outcometie',
            index=models.Index(condition=models.Q(('app', '')), fields=['since'], name='tie_unknown'),
        ),
        migrations.AddConstraint(
            model_name='outcometie',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('how__in', ['app', 'decision', 'receipt', 'earlier', 'request', 'token']), ('state', 'tied'), models.Q(('app', ''), _negated=True)), models.Q(('app', ''), ('how', ''), ('state__in', ('unknown', 'several'))), _connector='OR'), name='tie_is_whole'),
        ),
        # last: no table may be changed while checks of new rows wait for the end of the transaction
        migrations.RunSQL(
            (RESOURCES / "ties.sql").read_text(encoding="ascii"), (RESOURCES / "drop_ties.sql").read_text(encoding="ascii")
        ),
    ]
