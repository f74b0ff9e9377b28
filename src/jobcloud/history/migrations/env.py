"""The environment of alembic. `history.database` runs it with a connection; there is no alembic.ini."""

from alembic import context

from jobcloud.history.tables import metadata

# Each migration has a transaction of its own, so the earlier migrations stay if a later one fails. MariaDB has no
# transactions of DDL, so each step of a migration must be skipped if it is done.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=True,
    version_table="history_version",
)
with context.begin_transaction():
    context.run_migrations()
