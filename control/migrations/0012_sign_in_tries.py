"""Wrong tries to sign in are counted here; the tables of django-axes, which did so before, go."""

from django.db import migrations, models

AXES = "axes_accessattemptexpiration, axes_accessattempt, axes_accessfailurelog, axes_accesslog"


class Migration(migrations.Migration):
    dependencies = [("control", "0011_people")]

    operations = [
        migrations.CreateModel(
            name="SignInTry",
            fields=[
                ("key", models.CharField(max_length=32, primary_key=True, serialize=False)),
                ("tries", models.PositiveIntegerField(default=0)),
                ("at", models.DateTimeField()),
                ("next_at", models.DateTimeField()),
                ("signed_in_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "default_permissions": (),
                "indexes": [models.Index(fields=["at"], name="sign_in_tries_at")],
            },
        ),
        migrations.RunSQL(f"DROP TABLE IF EXISTS {AXES}", migrations.RunSQL.noop),
    ]
