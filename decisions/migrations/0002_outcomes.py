"""Outcomes and disputes, and the triggers that keep both as they were written."""

from pathlib import Path

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


RESOURCES = Path(__file__).resolve().parent.parent / "resources"


class Migration(migrations.Migration):

    dependencies = [
        ('decisions', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='Outcome',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.CharField(max_length=200, unique=True)),
                ('kind', models.CharField(choices=[('fraud_confirmed', 'Fraud confirmed'), ('chargeback', 'Chargeback'), ('downstream_incident', 'Downstream incident'), ('retry_storm', 'Retry storm'), ('churn', 'Churn'), ('false_throttle', 'False throttle'), ('correct_refusal', 'Refusal found correct')], max_length=32)),
                ('occurred_at', models.DateTimeField()),
                ('reported_at', models.DateTimeField()),
                ('matured_at', models.DateTimeField()),
                ('source', models.CharField(max_length=32)),
                ('weight', models.FloatField(default=1.0)),
                ('app', models.TextField(blank=True)),
                ('token_digest', models.CharField(blank=True, max_length=32)),
                ('request_id', models.TextField(blank=True)),
                ('decision', models.UUIDField(blank=True, null=True)),
                ('note', models.CharField(blank=True, max_length=500)),
                ('by', models.CharField(max_length=200)),
                ('digest', models.CharField(max_length=64)),
                ('stored_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'db_table': 'decisions_outcome',
                'permissions': [('report_outcome', 'May report outcomes and upload them')],
                'default_permissions': ('view',),
                'indexes': [models.Index(fields=['app', '-occurred_at'], name='outcome_app'), models.Index(condition=models.Q(('decision__isnull', False)), fields=['decision'], name='outcome_decision'), models.Index(condition=models.Q(('request_id', ''), _negated=True), fields=['request_id'], name='outcome_request'), models.Index(condition=models.Q(('token_digest', ''), _negated=True), fields=['token_digest'], name='outcome_token'), models.Index(fields=['matured_at'], name='outcome_matured')],
                'constraints': [models.CheckConstraint(condition=models.Q(('kind__in', ['fraud_confirmed', 'chargeback', 'downstream_incident', 'retry_storm', 'churn', 'false_throttle', 'correct_refusal'])), name='outcome_kind_known'), models.CheckConstraint(condition=models.Q(('key', ''), _negated=True), name='outcome_has_key'), models.CheckConstraint(condition=models.Q(models.Q(('app', ''), _negated=True), models.Q(('token_digest', ''), _negated=True), models.Q(('request_id', ''), _negated=True), ('decision__isnull', False), _connector='OR'), name='outcome_is_about_something'), models.CheckConstraint(condition=models.Q(('matured_at__gte', models.F('occurred_at')), ('reported_at__gte', models.F('occurred_at'))), name='outcome_times_in_order'), models.CheckConstraint(condition=models.Q(('weight__gt', 0), ('weight__lte', 1000000000.0)), name='outcome_weight_in_range')],
            },
        ),
        migrations.CreateModel(
            name='Dispute',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('decision', models.UUIDField()),
                ('at', models.DateTimeField()),
                ('app', models.TextField()),
                ('action', models.SmallIntegerField()),
                ('reason_code', models.SmallIntegerField()),
                ('weight', models.FloatField()),
                ('state', models.CharField(choices=[('open', 'Open'), ('upheld', 'Upheld: false throttle'), ('declined', 'Declined: correct')], default='open', max_length=16)),
                ('claim', models.CharField(max_length=1000)),
                ('ticket', models.CharField(blank=True, max_length=100)),
                ('opened_by', models.CharField(max_length=200)),
                ('opened_name', models.CharField(max_length=200)),
                ('opened_at', models.DateTimeField()),
                ('decided_by', models.CharField(blank=True, max_length=200)),
                ('decided_name', models.CharField(blank=True, max_length=200)),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('verdict_reason', models.CharField(blank=True, max_length=1000)),
                ('outcome', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='dispute', to='decisions.outcome')),
            ],
            options={
                'db_table': 'decisions_dispute',
                'permissions': [('open_dispute', 'May say that a refusal was wrong'), ('adjudicate_dispute', 'May decide a dispute that someone else opened')],
                'default_permissions': ('view',),
                'indexes': [models.Index(fields=['state', 'opened_at'], name='dispute_queue')],
                'constraints': [models.UniqueConstraint(condition=models.Q(('state__in', ('open', 'upheld'))), fields=('decision',), name='one_standing_dispute_per_decision'), models.CheckConstraint(condition=models.Q(models.Q(('decided_at', None), ('decided_by', ''), ('outcome', None), ('state', 'open'), ('verdict_reason', '')), models.Q(('decided_at__gte', models.F('opened_at')), ('outcome__isnull', False), ('state__in', ('upheld', 'declined')), models.Q(('decided_by', ''), _negated=True), models.Q(('verdict_reason', ''), _negated=True)), _connector='OR'), name='dispute_verdict_is_whole'), models.CheckConstraint(condition=models.Q(('decided_by', models.F('opened_by')), _negated=True), name='dispute_second_person'), models.CheckConstraint(condition=models.Q(('action__range', (1, 4))), name='dispute_of_refusal'), models.CheckConstraint(condition=models.Q(('weight__gte', 1)), name='dispute_weight_in_range'), models.CheckConstraint(condition=models.Q(models.Q(('claim', ''), _negated=True), models.Q(('opened_by', ''), _negated=True)), name='dispute_has_opener')],
            },
        ),
        migrations.RunSQL(
            (RESOURCES / "outcomes.sql").read_text(encoding="ascii"), (RESOURCES / "drop_outcomes.sql").read_text(encoding="ascii")
        ),
    ]
