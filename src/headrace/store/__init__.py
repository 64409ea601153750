"""Floor 3: rows and transactions, SQLAlchemy Core on SQLite or PostgreSQL."""
