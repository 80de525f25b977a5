from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("explain", "0003_forecast_by_kind")]

    operations = [
        migrations.AddField("forecast", "state", models.TextField(default="clear"), preserve_default=False),
        migrations.RunSQL("UPDATE explain_forecast SET state = 'soon' WHERE minutes IS NOT NULL", migrations.RunSQL.noop),
        migrations.AddField("forecast", "pace", models.FloatField(default=0.0)),
        migrations.AddField("forecast", "slowed", models.BooleanField(default=False)),
        migrations.AddConstraint(
            "forecast",
            models.CheckConstraint(condition=models.Q(("state__in", ("soon", "some", "clear"))), name="forecast_has_a_state"),
        ),
        migrations.AddConstraint(
            "forecast",
            models.CheckConstraint(
                condition=models.Q(("slowed", False), ("right__isnull", True), _connector="OR"),
                name="forecast_slowed_has_no_verdict",
            ),
        ),
    ]
