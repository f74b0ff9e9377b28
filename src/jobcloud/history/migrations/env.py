"""The environment of alembic. `history.database` runs it with a connection; there is no alembic.ini."""

from alembic import context

from jobcloud.history.tables import metadata

# With one transaction for each migration, a failed one leaves the earlier ones. MariaDB has no transactions of DDL,
# so each migration must do one thing, and do it only if it is not done yet.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=True,
    version_table="history_version",
)
with context.begin_transaction():
    context.run_migrations()
