from pathlib import Path

import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


RESOURCES = Path(__file__).resolve().parent.parent / "resources"


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='ConfigVersion',
            fields=[
                ('version', models.PositiveBigIntegerField(primary_key=True, serialize=False)),
                ('payload', models.BinaryField()),
                ('signed', models.BinaryField()),
                ('made_at', models.DateTimeField()),
                ('by', models.CharField(max_length=200)),
                ('reason', models.CharField(max_length=1000)),
                ('published_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ['-version'],
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='Tenant',
            fields=[
                ('id', models.CharField(max_length=128, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=200)),
            ],
        ),
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('seq', models.BigIntegerField(primary_key=True, serialize=False)),
                ('at', models.DateTimeField()),
                ('actor', models.CharField(max_length=200)),
                ('actor_login', models.CharField(blank=True, max_length=200)),
                ('actor_role', models.CharField(max_length=200)),
                ('action', models.CharField(max_length=64)),
                ('subject', models.CharField(max_length=200)),
                ('summary', models.CharField(max_length=500)),
                ('reason', models.CharField(max_length=1000)),
                ('before', models.JSONField(blank=True, null=True)),
                ('after', models.JSONField(blank=True, null=True)),
                ('prev_hash', models.CharField(max_length=64)),
                ('hash', models.CharField(max_length=64, unique=True)),
                ('config_version', models.ForeignKey(blank=True, db_column='config_version', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='audit', to='control.configversion')),
            ],
            options={
                'verbose_name_plural': 'audit entries',
                'ordering': ['-seq'],
                'permissions': [('view_audit', 'May read the audit log')],
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='SwitchFlip',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=64)),
                ('reason', models.CharField(max_length=1000)),
                ('by', models.CharField(max_length=200)),
                ('engaged_at', models.DateTimeField()),
                ('until', models.DateTimeField(blank=True, null=True)),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('ended_by', models.CharField(blank=True, max_length=200)),
                ('ended_reason', models.CharField(blank=True, max_length=1000)),
                ('ended_version', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='control.configversion')),
                ('engaged_version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='control.configversion')),
            ],
            options={
                'ordering': ['-engaged_at'],
                'permissions': [('engage_switch', 'May engage, extend and clear kill switches')],
                'default_permissions': ('view',),
                'constraints': [models.UniqueConstraint(condition=models.Q(('ended_at', None)), fields=('name',), name='one_open_flip_per_switch'), models.CheckConstraint(condition=models.Q(('until', None), ('until__gt', models.F('engaged_at')), _connector='OR'), name='flip_ends_after_it_began')],
            },
        ),
        migrations.CreateModel(
            name='App',
            fields=[
                ('id', models.CharField(max_length=128, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=200)),
                ('tier', models.PositiveSmallIntegerField(choices=[(0, 'Free'), (1, 'Standard'), (2, 'Premium'), (3, 'Enterprise')])),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('verified', models.BooleanField(default=False)),
                ('cohort_prior', models.FloatField(default=0.05, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1)])),
                ('abuse_history', models.PositiveIntegerField(default=0)),
                ('chargeback_history', models.PositiveIntegerField(default=0)),
                ('false_throttle_history', models.PositiveIntegerField(default=0)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='apps', to='control.tenant')),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('tier__lte', 3)), name='app_tier_known'), models.CheckConstraint(condition=models.Q(('cohort_prior__gte', 0), ('cohort_prior__lte', 1)), name='app_prior_is_share')],
            },
        ),
        migrations.RunSQL(
            (RESOURCES / "guard.sql").read_text(encoding="ascii"), (RESOURCES / "unguard.sql").read_text(encoding="ascii")
        ),
    ]
