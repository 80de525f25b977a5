from pathlib import Path

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from control.approvals import lifecycle

RESOURCES = Path(__file__).resolve().parent.parent / "resources"


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Request',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('action', models.CharField(max_length=64)),
                ('subject', models.CharField(max_length=200)),
                ('summary', models.CharField(max_length=500)),
                ('payload', models.TextField()),
                ('digest', models.CharField(max_length=64)),
                ('base', models.JSONField()),
                ('requested_at', models.DateTimeField()),
                ('reason', models.CharField(max_length=1000)),
                ('ticket', models.CharField(blank=True, max_length=40)),
                ('needs', models.PositiveSmallIntegerField(default=1)),
                ('expires_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('open', 'Waiting'), ('applied', 'Applied'), ('vetoed', 'Vetoed'), ('expired', 'Ended undecided'), ('withdrawn', 'Withdrawn'), ('failed', 'Approved, could not be applied')], default='open', max_length=16)),
                ('closed_at', models.DateTimeField(blank=True, null=True)),
                ('outcome', models.CharField(blank=True, max_length=1000)),
                ('requested_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-pk'],
                'permissions': [('approve_switches', 'May approve changes of switches and services'), ('approve_policies', 'May approve changes of policies, overrides and lists'), ('approve_rollouts', 'May approve changes of the model that decides'), ('approve_rule', 'May approve turning four eyes on and off')],
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='Mode',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('on', models.BooleanField()),
                ('at', models.DateTimeField()),
                ('request', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='mode', to='approvals.request')),
            ],
            options={
                'ordering': ['-pk'],
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='Review',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('digest', models.CharField(max_length=64)),
                ('payload', models.TextField()),
                ('summary', models.CharField(max_length=500)),
                ('reason', models.CharField(max_length=1000)),
                ('by', models.CharField(max_length=200)),
                ('by_login', models.CharField(blank=True, max_length=200)),
                ('made_at', models.DateTimeField()),
                ('closed_at', models.DateTimeField(blank=True, null=True)),
                ('closed_reason', models.CharField(blank=True, max_length=1000)),
                ('closed_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-pk'],
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='Vote',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('digest', models.CharField(max_length=64)),
                ('verdict', models.CharField(choices=[('approve', 'Approved'), ('veto', 'Vetoed')], max_length=16)),
                ('reason', models.CharField(max_length=1000)),
                ('how', models.CharField(choices=[('session', 'session'), ('token', 'API token'), ('passkey', 'passkey')], max_length=16)),
                ('assertion', models.BinaryField(blank=True, null=True)),
                ('at', models.DateTimeField()),
                ('request', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='votes', to='approvals.request')),
                ('voter', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['at', 'pk'],
                'default_permissions': ('view',),
            },
        ),
        migrations.AddIndex(
            model_name='request',
            index=models.Index(condition=models.Q(('state', 'open')), fields=['expires_at'], name='open_requests'),
        ),
        migrations.AddIndex(
            model_name='request',
            index=models.Index(fields=['closed_at'], name='closed_requests'),
        ),
        migrations.AddConstraint(
            model_name='request',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'open')), fields=('digest',), name='one_open_request_for_a_change'),
        ),
        migrations.AddConstraint(
            model_name='request',
            constraint=models.CheckConstraint(condition=models.Q(('needs__gte', 1)), name='request_needs_someone'),
        ),
        migrations.AddConstraint(
            model_name='request',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['open', 'applied', 'vetoed', 'expired', 'withdrawn', 'failed'])), name='request_state_known'),
        ),
        migrations.AddConstraint(
            model_name='request',
            constraint=models.CheckConstraint(condition=models.Q(('expires_at__gt', models.F('requested_at'))), name='request_ends_later'),
        ),
        migrations.AddConstraint(
            model_name='request',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('closed_at', None), ('state', 'open')), models.Q(models.Q(('state', 'open'), _negated=True), ('closed_at__isnull', False)), _connector='OR'), name='closed_request_has_its_time'),
        ),
        migrations.AddConstraint(
            model_name='review',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('closed_at', None), ('closed_by', None), ('closed_reason', '')), models.Q(('closed_at__isnull', False), ('closed_by__isnull', False), models.Q(('closed_reason', ''), _negated=True)), _connector='OR'), name='closed_review_says_by_whom'),
        ),
        migrations.AddConstraint(
            model_name='vote',
            constraint=models.UniqueConstraint(fields=('request', 'voter'), name='one_vote_of_a_person'),
        ),
        migrations.AddConstraint(
            model_name='vote',
            constraint=models.CheckConstraint(condition=models.Q(('verdict__in', ('approve', 'veto'))), name='verdict_known'),
        ),
        migrations.AddConstraint(
            model_name='vote',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('assertion__isnull', False), ('how', 'passkey')), models.Q(('assertion', None), ('how__in', ('session', 'token'))), _connector='OR'), name='passkey_has_its_assertion'),
        ),
        migrations.RunSQL(
            (RESOURCES / "approvals.sql")
            .read_text(encoding="ascii")
            .replace("{transitions}", lifecycle.pairs_as_sql()),
            (RESOURCES / "unapprovals.sql").read_text(encoding="ascii"),
        ),
    ]
