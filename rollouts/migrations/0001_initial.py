import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='ModelVersion',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=128)),
                ('version', models.PositiveIntegerField()),
                ('digest', models.CharField(max_length=64, unique=True, validators=[django.core.validators.RegexValidator('^[0-9a-f]{64}$')])),
                ('feature_schema', models.CharField(max_length=128)),
                ('card', models.JSONField()),
                ('state', models.CharField(choices=[('registered', 'Registered'), ('live', 'Live'), ('retired', 'Retired')], default='registered', max_length=16)),
                ('registered_at', models.DateTimeField()),
                ('by', models.CharField(max_length=200)),
                ('live_since', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ['-registered_at'],
                'permissions': [('register_model', 'May register model versions'), ('promote_model', 'May make a model version live')],
                'default_permissions': ('view',),
                'constraints': [models.UniqueConstraint(fields=('name', 'version'), name='model_version_once'), models.UniqueConstraint(condition=models.Q(('state', 'live')), fields=('state',), name='one_live_model'), models.CheckConstraint(condition=models.Q(models.Q(('state', 'live'), _negated=True), ('live_since__isnull', False), _connector='OR'), name='live_model_has_since')],
            },
        ),
    ]
