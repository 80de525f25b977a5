from pathlib import Path

import django.utils.timezone
from django.db import migrations, models


RESOURCES = Path(__file__).resolve().parent.parent / "resources"


class Migration(migrations.Migration):

    dependencies = [
        ('control', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='AppNote',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('app', models.CharField(max_length=128)),
                ('text', models.CharField(max_length=1000)),
                ('by', models.CharField(max_length=200)),
                ('by_role', models.CharField(max_length=200)),
                ('at', models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                'ordering': ['-at', '-pk'],
                'default_permissions': ('add', 'view'),
            },
        ),
        migrations.AlterModelOptions(
            name='app',
            options={'permissions': [('reset_bucket', 'May have the deciders fill a bucket of an app')]},
        ),
        migrations.AlterModelOptions(
            name='auditentry',
            options={'default_permissions': (), 'ordering': ['-seq'], 'permissions': [('view_audit', 'May read the audit log'), ('view_looks', "May see who looked at an app's data")], 'verbose_name_plural': 'audit entries'},
        ),
        migrations.AddIndex(
            model_name='auditentry',
            index=models.Index(condition=models.Q(('action', 'app.look')), fields=['subject', 'actor_login', 'at'], name='audit_looks'),
        ),
        migrations.AddIndex(
            model_name='appnote',
            index=models.Index(fields=['app', '-at'], name='app_notes'),
        ),
        migrations.RunSQL(
            (RESOURCES / "fix_notes.sql").read_text(encoding="ascii"), (RESOURCES / "unfix_notes.sql").read_text(encoding="ascii")
        ),
    ]
