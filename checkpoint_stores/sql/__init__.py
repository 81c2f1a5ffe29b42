"""The SQL store: SQLite and PostgreSQL behind one protocol.  Importing it imports SQLAlchemy."""
