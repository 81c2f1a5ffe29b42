"""The SQL store: SQLite and PostgreSQL behind one protocol.  On SQLite only migrations and steps' own transactions import SQLAlchemy."""
