"""Events that could not be stored, the account of each run of a decider, and the days dropped."""

import django.contrib.postgres.indexes
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('decisions', '0005_replayed'),
    ]

    operations = [
        migrations.AlterField(
            model_name='ingestedbatch',
            name='stored_at',
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
        ),
        migrations.AddIndex(
            model_name='ingestedbatch',
            index=django.contrib.postgres.indexes.BrinIndex(fields=['stored_at'], name='batch_stored_at'),
        ),
        migrations.CreateModel(
            name='BuriedEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('whole', models.BooleanField()),
                ('entry', models.TextField()),
                ('batch', models.UUIDField(null=True)),
                ('run', models.UUIDField(null=True)),
                ('node', models.TextField()),
                ('raw', models.BinaryField()),
                ('size', models.IntegerField()),
                ('sqlstate', models.CharField(max_length=5)),
                ('reason', models.CharField(max_length=500)),
                ('buried_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'ordering': ['-id'],
                'permissions': [('settle_buriedevent', 'May replay and discard events that were buried')],
                'default_permissions': ('view',),
                'constraints': [models.UniqueConstraint(condition=models.Q(('whole', True)), fields=('entry',), name='batch_buried_once')],
            },
        ),
        migrations.CreateModel(
            name='DeciderRun',
            fields=[
                ('run', models.UUIDField(primary_key=True, serialize=False)),
                ('node', models.TextField()),
                ('first_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('last_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('dropped', models.BigIntegerField(default=0)),
                ('sent', models.BigIntegerField(default=0)),
                ('stored', models.BigIntegerField(default=0)),
                ('buried', models.BigIntegerField(default=0)),
                ('discarded', models.BigIntegerField(default=0)),
                ('withheld', models.BigIntegerField(default=0)),
                ('lost', models.BigIntegerField(default=0)),
                ('lost_at', models.DateTimeField(null=True)),
            ],
            options={
                'default_permissions': (),
                'constraints': [models.CheckConstraint(condition=models.Q(('buried__gte', 0), ('discarded__gte', 0), ('dropped__gte', 0), ('sent__gte', 0), ('stored__gte', 0)), name='run_counts_are_counts')],
            },
        ),
        migrations.CreateModel(
            name='DroppedDay',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.TextField()),
                ('day', models.DateField()),
                ('rows', models.BigIntegerField()),
                ('size', models.BigIntegerField()),
                ('why', models.TextField(choices=[('age', 'Age'), ('size', 'Disk budget')])),
                ('dropped_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'ordering': ['-dropped_at', '-id'],
                'default_permissions': (),
            },
        ),
    ]
