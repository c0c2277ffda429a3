"""The log's statements. Only text and integers are bound: the rest is cast here."""

from typing import Final

OPERATION: Final = """
    SELECT id::text, idempotency_key, body_hash, state, plan, attempt FROM plan2.operation
"""
CREATE: Final = """
    INSERT INTO plan2.operation
        (id, idempotency_key, body_hash, state, plan, engines, lease_owner, lease_until,
         finished_at)
    VALUES
        ($1::text::uuid, $2, $3, $4, $5, $6, $7, now() + $8::int * interval '1 millisecond',
         CASE WHEN $9::int <> 0 THEN now() END)
    ON CONFLICT DO NOTHING RETURNING attempt
"""
EXTEND: Final = """
    UPDATE plan2.operation
    SET lease_until = clock_timestamp() + $2::int * interval '1 millisecond'
    WHERE id = $1::text::uuid
"""
STEPS: Final = """
    SELECT kind, position, state, tries, unsure::int, result, problem
    FROM plan2.operation_step WHERE operation_id = $1::text::uuid
"""
INTENT: Final = """
    INSERT INTO plan2.operation_step AS s (operation_id, kind, position, state, tries)
    VALUES ($1::text::uuid, $2, $3::int, 'running', 1)
    ON CONFLICT (operation_id, kind, position) DO UPDATE SET
        unsure = s.unsure OR s.state IN ('running', 'unknown'),
        state = 'running', tries = s.tries + 1, changed_at = now()
    WHERE s.state <> 'committed'
    RETURNING tries, unsure::int
"""
OUTCOME: Final = """
    UPDATE plan2.operation_step
    SET state = $4, result = $5, problem = $6, unsure = $7::int <> 0, changed_at = now()
    WHERE operation_id = $1::text::uuid AND kind = $2 AND position = $3::int
        AND state <> 'committed'
"""
CLAIM: Final = """
    WITH due AS (
        SELECT id FROM plan2.operation
        WHERE finished_at IS NULL AND lease_until < now()
            AND string_to_array(engines, ',') <@ string_to_array($1, ',')
        ORDER BY lease_until LIMIT $2::int FOR UPDATE SKIP LOCKED
    )
    UPDATE plan2.operation o
    SET lease_owner = $3, lease_until = now() + $4::int * interval '1 millisecond',
        attempt = attempt + 1
    FROM due WHERE o.id = due.id RETURNING o.id::text, o.attempt
"""
MINE: Final = """
    FROM (SELECT split_part(pair, '/', 1)::uuid AS id, split_part(pair, '/', 2)::int AS attempt
          FROM unnest(string_to_array($1, ',')) pair) mine
    WHERE o.id = mine.id AND o.attempt = mine.attempt AND o.finished_at IS NULL
"""
