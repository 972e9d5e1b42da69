"""The event store's schema as data: the position of a migration in ``MIGRATIONS`` is its version, from 1.

A migration that was released is never edited: a change is a new entry at the end. Each one runs in its own
transaction, together with the line in ``schema_versions`` that says it was done.
"""

VERSIONS_TABLE = """
CREATE TABLE IF NOT EXISTS schema_versions (version INTEGER PRIMARY KEY, applied TIMESTAMPTZ NOT NULL)
"""
"""Which migrations this file has seen."""

_EVENTS = """
CREATE TABLE events (
    stream  VARCHAR NOT NULL,
    id      VARCHAR NOT NULL,
    ts      TIMESTAMPTZ NOT NULL,
    type    VARCHAR NOT NULL,
    agent   VARCHAR NOT NULL,
    task_id VARCHAR NOT NULL,
    data    JSON NOT NULL,
    PRIMARY KEY (stream, id)
)
"""

_STREAM_ORDER = """
CREATE MACRO stream_order(id) AS
    coalesce(try_cast(split_part(id, '-', 1) AS UHUGEINT), 0) * 18446744073709551616::UHUGEINT
    + coalesce(try_cast(split_part(id, '-', 2) AS UHUGEINT), 0)
"""
# A stream id is `milliseconds-sequence`; as text, `…-10` sorts before `…-9`. The server gives the ids, so their order
# holds across hosts whose clocks differ, which `ts` does not.

_NODES = """
CREATE VIEW nodes AS
SELECT
    owner,
    id,
    latest ->> 'title' AS title,
    latest ->> 'url' AS url,
    latest ->> 'revision' AS revision,
    latest ->> 'source' AS source,
    (latest -> 'data')::JSON AS data,
    versions,
    first_seen,
    last_seen,
    agent,
    task_id
FROM (
    SELECT
        coalesce(data ->> 'owner', '') AS owner,
        data ->> 'id' AS id,
        arg_max(data, stream_order(events.id)) AS latest,
        count(*) AS versions,
        min(ts) AS first_seen,
        max(ts) AS last_seen,
        arg_max(agent, stream_order(events.id)) AS agent,
        arg_max(task_id, stream_order(events.id)) AS task_id
    FROM events
    WHERE type = 'node.add' AND (data ->> 'id') IS NOT NULL
    GROUP BY ALL
)
"""

_EDGES = """
CREATE VIEW edges AS
SELECT
    coalesce(data ->> 'owner', '') AS owner,
    data ->> 'source' AS source,
    data ->> 'target' AS target,
    data ->> 'type' AS type,
    arg_max((data -> 'data')::JSON, stream_order(events.id)) AS data,
    count(*) AS versions,
    min(ts) AS first_seen,
    max(ts) AS last_seen,
    arg_max(agent, stream_order(events.id)) AS agent,
    arg_max(task_id, stream_order(events.id)) AS task_id
FROM events
WHERE events.type = 'edge.add' AND (data ->> 'source') IS NOT NULL AND (data ->> 'target') IS NOT NULL
GROUP BY 1, 2, 3, 4
"""

_TASKS = """
CREATE VIEW tasks AS
WITH steps AS (
    SELECT
        task_id,
        type,
        ts,
        data,
        stream_order(id) AS place,
        CASE type
            WHEN 'task.submit' THEN 0 WHEN 'task.retry' THEN 1 WHEN 'task.start' THEN 2
            WHEN 'task.dead' THEN 4 WHEN 'task.cancel' THEN 4 ELSE 3
        END AS stage,
        ((place >> 64) << 67) + (stage::UHUGEINT << 64) + (place & 18446744073709551615) AS latest
    FROM events
    WHERE type IN ('task.submit', 'task.start', 'task.retry', 'task.complete', 'task.fail', 'task.dead', 'task.cancel')
        AND task_id <> '' AND NOT ends_with(stream, ':dead')
)
SELECT
    task_id AS id,
    max(data ->> 'owner') AS owner,
    max(data ->> 'kind') AS kind,
    CASE arg_max(type, latest)
        WHEN 'task.submit' THEN 'queued'
        WHEN 'task.start' THEN 'running'
        WHEN 'task.retry' THEN 'queued'
        WHEN 'task.fail' THEN 'retrying'
        WHEN 'task.complete' THEN 'complete'
        WHEN 'task.dead' THEN 'dead'
        WHEN 'task.cancel' THEN 'cancelled'
    END AS status,
    count(*) FILTER (type = 'task.start') AS attempts,
    count(*) FILTER (type = 'task.fail') AS failures,
    arg_max(data ->> 'worker', latest) FILTER (type = 'task.start') AS worker,
    arg_max(data ->> 'error', latest) FILTER (type IN ('task.fail', 'task.dead')) AS error,
    min(ts) FILTER (type = 'task.submit') AS submitted,
    min(ts) FILTER (type = 'task.start') AS started,
    CASE
        WHEN arg_max(type, latest) IN ('task.complete', 'task.dead', 'task.cancel') THEN arg_max(ts, latest)
    END AS finished,
    date_diff('millisecond', submitted, finished) / 1000 AS seconds,
    arg_max(try_cast(data ->> 'seconds' AS DOUBLE), latest) FILTER (type = 'task.complete') AS run_seconds
FROM steps
GROUP BY task_id
"""
# Submissions and retries lie on another stream than the rest, so within one millisecond the stages of a task's life
# decide what came later. A dead task is reported twice: with the other events, and among the dead letters.

_LLM_USAGE = """
CREATE VIEW llm_usage AS
SELECT
    ts,
    coalesce(data ->> 'owner', '') AS owner,
    agent,
    task_id,
    data ->> 'provider' AS provider,
    data ->> 'model' AS model,
    coalesce(try_cast(data ->> 'input_tokens' AS BIGINT), 0) AS input_tokens,
    coalesce(try_cast(data ->> 'output_tokens' AS BIGINT), 0) AS output_tokens,
    input_tokens + output_tokens AS tokens,
    coalesce(try_cast(data ->> 'usd' AS DOUBLE), 0) AS usd,
    try_cast(data ->> 'seconds' AS DOUBLE) AS seconds,
    try_cast(data ->> 'first_token_s' AS DOUBLE) AS first_token_s,
    try_cast(data ->> 'ok' AS BOOLEAN) AS ok
FROM events
WHERE type = 'llm.usage'
"""

_NODE_GROWTH = """
CREATE VIEW node_growth AS
WITH arrivals AS (
    SELECT first_seen, 1 AS node, 0 AS edge FROM nodes
    UNION ALL
    SELECT first_seen, 0 AS node, 1 AS edge FROM edges
)
SELECT
    per,
    date_trunc(per, first_seen) AS bucket,
    sum(node)::BIGINT AS nodes,
    sum(edge)::BIGINT AS edges,
    (sum(sum(node)) OVER (PARTITION BY per ORDER BY bucket))::BIGINT AS nodes_so_far,
    (sum(sum(edge)) OVER (PARTITION BY per ORDER BY bucket))::BIGINT AS edges_so_far
FROM arrivals CROSS JOIN (VALUES ('minute'), ('hour'), ('day')) AS spans (per)
GROUP BY per, bucket
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = ((_EVENTS, _STREAM_ORDER, _NODES, _EDGES, _TASKS, _LLM_USAGE, _NODE_GROWTH),)
"""Statements of each version."""
