"""Each config version says whether it needed a second person, and who that was."""

from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models

RESOURCES = Path(__file__).resolve().parent.parent / "resources"


class Migration(migrations.Migration):

    dependencies = [
        ('approvals', '0001_initial'),
        ('control', '0009_confined'),
    ]

    operations = [
        migrations.AddField(
            model_name='configversion',
            name='alone',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name='configversion',
            name='change',
            field=models.CharField(blank=True, db_default='', max_length=64),
        ),
        migrations.AddField(
            model_name='configversion',
            name='loosens',
            field=models.BooleanField(null=True),
        ),
        migrations.AddField(
            model_name='configversion',
            name='request',
            field=models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='version', to='approvals.request'),
        ),
        migrations.AddField(
            model_name='configversion',
            name='review',
            field=models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='version', to='approvals.review'),
        ),
        migrations.RunSQL(
            (RESOURCES / "four_eyes.sql").read_text(encoding="ascii"),
            (RESOURCES / "unfour_eyes.sql").read_text(encoding="ascii"),
        ),
    ]
