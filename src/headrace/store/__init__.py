"""Floor 3: rows that survive every crash: SQLAlchemy Core on SQLite or PostgreSQL."""

from headrace.store.database import Store
from headrace.store.migrations import migrate
from headrace.store.questions import Condition, Order
from headrace.store.rows import Row, Stateful, cursor
from headrace.store.transaction import Transaction

__all__ = ["Condition", "Order", "Row", "Stateful", "Store", "Transaction", "cursor", "migrate"]
