"""The SQL store: SQLite and PostgreSQL behind one protocol.  A run on SQLite imports no SQLAlchemy; listings and PostgreSQL do."""
