"""The kill switch: engaging and clearing it, also with PostgreSQL or Valkey down."""
