"""Getting decisions into PostgreSQL: the ingest worker, its COPY format, partitions."""
