"""Imports of apps, and which one changed an app last."""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("control", "0007_declared")]

    operations = [
        migrations.CreateModel(
            name="AppImport",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField()),
                ("by", models.CharField(max_length=200)),
                ("digest", models.CharField(max_length=64)),
                ("rows", models.PositiveIntegerField()),
                ("added", models.PositiveIntegerField(default=0)),
                ("changed", models.PositiveIntegerField(default=0)),
                ("published_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "ordering": ["-pk"],
                "default_permissions": (),
                "indexes": [models.Index(condition=Q(published_at=None), fields=["at"], name="imports_to_publish")],
            },
        ),
        migrations.AddField(
            model_name="app",
            name="imported",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="control.appimport",
            ),
        ),
        migrations.AlterModelOptions(
            name="app",
            options={
                "permissions": [
                    ("reset_bucket", "May have the deciders fill a bucket of an app"),
                    ("import_apps", "May import apps and tenants"),
                ]
            },
        ),
    ]
