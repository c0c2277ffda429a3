"""The schema `plan2` in the application's PostgreSQL database: its tables, version by version.

The operator runs the migrations as the administrator and grants the application its rights; a
sidecar started by hand runs them itself. Migrations only add, so that an older program finds
what it knows in a newer schema. A released migration is never edited.
"""

from collections.abc import Iterator, Sequence
from typing import Final

NAME: Final = "plan2"
LOCK: Final = int.from_bytes(b"plan2")
"""The advisory lock that whoever migrates or provisions holds: "plan2" as a number."""

SESSIONS: Final = 2
CONFIGURATION: Final = 3
CROSS_DB: Final = 4
"""The versions that brought what a call needs."""

MIGRATIONS: Final[Sequence[Sequence[str]]] = (
    (
        """
        CREATE TABLE plan2.bootstrap (
            position integer PRIMARY KEY,
            fingerprint text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now()
        )
        """,
    ),
    (
        # One row. `epoch`: how often a write could not reach the store, whose keys carry it.
        # `answers`: how often it could not be told what makes kept answers old.
        """
        CREATE TABLE plan2.store_epoch (
            singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
            epoch bigint NOT NULL DEFAULT 0,
            answers bigint NOT NULL DEFAULT 0,
            changed_at timestamptz NOT NULL DEFAULT now()
        )
        """,
        "INSERT INTO plan2.store_epoch DEFAULT VALUES",
        # `data` is kept as the text it came as.
        """
        CREATE TABLE plan2.session (
            id text PRIMARY KEY,
            data text NOT NULL,
            expires_at timestamptz NOT NULL
        )
        """,
        "CREATE INDEX session_expires_at ON plan2.session (expires_at)",
    ),
    (
        # `value` NULL is deleted: the version goes on counting when the key comes back.
        """
        CREATE TABLE plan2.config (
            user_id text NOT NULL,
            key text NOT NULL,
            value json,
            version bigint NOT NULL,
            updated_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (user_id, key)
        )
        """,
        """
        CREATE TABLE plan2.config_change (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            user_id text NOT NULL,
            key text NOT NULL,
            version bigint,
            old_value json,
            new_value json,
            actor text NOT NULL,
            at timestamptz NOT NULL DEFAULT now(),
            copied boolean NOT NULL DEFAULT false
        )
        """,
        "CREATE INDEX config_change_key ON plan2.config_change (user_id, key, id DESC)",
        "CREATE INDEX config_change_copied ON plan2.config_change (id) WHERE NOT copied",
        # What the registry was told while the store was away. `body` NULL is taken back.
        """
        CREATE TABLE plan2.registration (
            group_name text NOT NULL,
            member text NOT NULL,
            body text,
            ttl_ms bigint NOT NULL,
            expires_at timestamptz NOT NULL,
            PRIMARY KEY (group_name, member)
        )
        """,
    ),
    (
        # `lease_until` is also when an operation that waits for its next try is due. `engines` lets
        # a sidecar leave alone what it has no connection for.
        """
        CREATE TABLE plan2.operation (
            id uuid PRIMARY KEY,
            idempotency_key text NOT NULL UNIQUE,
            body_hash text NOT NULL,
            state text NOT NULL,
            plan text NOT NULL,
            engines text NOT NULL,
            lease_owner text,
            lease_until timestamptz NOT NULL,
            attempt integer NOT NULL DEFAULT 1,
            created_at timestamptz NOT NULL DEFAULT now(),
            finished_at timestamptz
        )
        """,
        "CREATE INDEX operation_lease ON plan2.operation (lease_until) WHERE finished_at IS NULL",
        "CREATE INDEX operation_finished ON plan2.operation (finished_at)",
        # `kind` is do or undo. `unsure`: a try before the last may have been applied. The result
        # of a PostgreSQL step is written in the transaction of the step: its proof.
        """
        CREATE TABLE plan2.operation_step (
            operation_id uuid NOT NULL REFERENCES plan2.operation ON DELETE CASCADE,
            kind text NOT NULL,
            position integer NOT NULL,
            state text NOT NULL,
            tries integer NOT NULL DEFAULT 0,
            unsure boolean NOT NULL DEFAULT false,
            result text,
            problem text,
            changed_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (operation_id, kind, position)
        )
        """,
    ),
)

NEWEST: Final = len(MIGRATIONS)

VERSION_TABLE: Final = (
    f"CREATE SCHEMA IF NOT EXISTS {NAME}",
    """
    CREATE TABLE IF NOT EXISTS plan2.schema_version (
        version integer PRIMARY KEY,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
    """,
)

_SERVED: Final = (
    "store_epoch",
    "session",
    "config",
    "config_change",
    "registration",
    "operation",
    "operation_step",
)


def pending(version: int) -> Iterator[tuple[int, Sequence[str]]]:
    """The migrations a schema at `version` still needs: each with the version it leads to."""
    yield from enumerate(MIGRATIONS[version:], start=version + 1)


def grants(role: str) -> Sequence[str]:
    """The application's rights on the newest schema; `role` needs no quotes."""
    tables = ", ".join(f"{NAME}.{table}" for table in _SERVED)
    return (
        f"GRANT USAGE ON SCHEMA {NAME} TO {role}",
        f"GRANT SELECT ON {NAME}.schema_version TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}",
    )
