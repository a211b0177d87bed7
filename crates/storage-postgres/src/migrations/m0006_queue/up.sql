ALTER TABLE tenants
    ADD COLUMN max_concurrent_runs INT,
    ADD CONSTRAINT tenants_max_concurrent_runs_check CHECK (max_concurrent_runs BETWEEN 1 AND 100000);

ALTER TABLE agent_runs
    ADD COLUMN parent_run_id BIGINT,
    ADD COLUMN priority SMALLINT NOT NULL DEFAULT 0,
    ADD COLUMN run_at TIMESTAMPTZ,
    ADD COLUMN unique_key TEXT,
    ADD COLUMN failure_count INT NOT NULL DEFAULT 0,
    ADD COLUMN pause_requested_at TIMESTAMPTZ,
    ADD CONSTRAINT agent_runs_parent_run_id_fkey FOREIGN KEY (tenant_id, parent_run_id)
        REFERENCES agent_runs (tenant_id, id) ON DELETE SET NULL (parent_run_id),
    ADD CONSTRAINT agent_runs_unique_key_check
        CHECK (btrim(unique_key) <> '' AND char_length(unique_key) <= 200),
    ADD CONSTRAINT agent_runs_counts_check
        CHECK (least(attempt_count, crash_count, failure_count, last_seq) >= 0),
    DROP CONSTRAINT agent_runs_stop_reason_check,
    ADD CONSTRAINT agent_runs_stop_reason_check CHECK (stop_reason = ANY ('{
        end_turn, error, max_steps, max_tokens_exceeded, cancelled, no_tool_call, invalid_tool_call, max_cost,
        max_time, worker_lost, hung, looping}'));
-- Of the runs of a tenant that have not ended, one has a key. Partial, so an index and no constraint.
CREATE UNIQUE INDEX agent_runs_unique_key_key ON agent_runs (tenant_id, unique_key)
    WHERE unique_key IS NOT NULL AND status NOT IN ('succeeded', 'failed', 'cancelled');
CREATE INDEX agent_runs_parent_run_id_idx ON agent_runs (tenant_id, parent_run_id) WHERE parent_run_id IS NOT NULL;
-- Each change of a run's state writes each index of the table: those on what most runs lack hold only the others.
DROP INDEX agent_runs_ticket_id_idx;
DROP INDEX agent_runs_repository_id_idx;
DROP INDEX agent_runs_agent_id_status_idx;
DROP INDEX agent_runs_started_at_idx;
CREATE INDEX agent_runs_ticket_id_idx ON agent_runs (tenant_id, ticket_id) WHERE ticket_id IS NOT NULL;
CREATE INDEX agent_runs_repository_id_idx ON agent_runs (tenant_id, repository_id) WHERE repository_id IS NOT NULL;
CREATE INDEX agent_runs_agent_id_status_idx ON agent_runs (tenant_id, agent_id, status) WHERE agent_id IS NOT NULL;
CREATE INDEX agent_runs_started_at_idx ON agent_runs (tenant_id, started_at) WHERE started_at IS NOT NULL;

-- The references to the project and to the run prove the tenant; another one to tenants would lock its row with every
-- write.
ALTER TABLE agent_runs DROP CONSTRAINT agent_runs_tenant_id_fkey;
ALTER TABLE run_attempts DROP CONSTRAINT run_attempts_tenant_id_fkey;

-- The place of every run that has not ended is in one of two tables: in `run_queue` while it waits, in `run_leases` while a
-- worker has it. What is often written is here, in rows that are narrow and in no index by what a heartbeat or an append
-- changes. To take a run moves its row: nothing but two entries in indexes that grow at their end is written for it, and
-- neither table's indexes hold what is in the other.
CREATE TABLE run_queue (
    run_id      BIGINT,
    tenant_id   BIGINT NOT NULL,
    project_id  BIGINT NOT NULL,
    -- 0 for none: a lane is compared as a whole, and a null compares with nothing.
    agent_id    BIGINT NOT NULL DEFAULT 0,
    -- Ready: since when.
    queued_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- Scheduled: when it becomes ready.
    due_at      TIMESTAMPTZ,
    last_seq    BIGINT NOT NULL DEFAULT 0,
    inputs      INT NOT NULL DEFAULT 0,
    priority    SMALLINT NOT NULL DEFAULT 0,
    -- 0 ready, 1 scheduled, 2 paused.
    state       SMALLINT NOT NULL DEFAULT 0,
    provider    TEXT COLLATE "C" NOT NULL,
    CONSTRAINT run_queue_pkey PRIMARY KEY (run_id),
    CONSTRAINT run_queue_state_check CHECK (state IN (0, 1, 2)),
    CONSTRAINT run_queue_due_at_check CHECK ((due_at IS NOT NULL) = (state = 1))
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000,
    -- Giving pages back takes a lock that everybody waits for, and the next burst wants them again.
    vacuum_truncate = off, vacuum_index_cleanup = on
);
CREATE INDEX run_queue_ready_idx ON run_queue (tenant_id, project_id, agent_id, provider, priority DESC, run_id)
    WHERE state = 0;
-- For all tenants, as the one who looks does.
CREATE INDEX run_queue_due_at_idx ON run_queue (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE run_leases (
    run_id            BIGINT,
    tenant_id         BIGINT NOT NULL,
    project_id        BIGINT NOT NULL,
    agent_id          BIGINT NOT NULL,
    -- The id of the attempt, which gets its row when it begins.
    token             BIGINT NOT NULL,
    expires_at        TIMESTAMPTZ NOT NULL,
    -- When to look whether it has run out, at the latest when it does; a heartbeat leaves it, so that no index changes, and
    -- who looks finds the lease longer.
    due_at            TIMESTAMPTZ NOT NULL,
    -- Since when it had been ready.
    queued_at         TIMESTAMPTZ NOT NULL,
    last_seq          BIGINT NOT NULL,
    inputs            INT NOT NULL,
    priority          SMALLINT NOT NULL,
    started           BOOLEAN NOT NULL DEFAULT FALSE,
    cancel_requested  BOOLEAN NOT NULL DEFAULT FALSE,
    pause_requested   BOOLEAN NOT NULL DEFAULT FALSE,
    provider          TEXT COLLATE "C" NOT NULL,
    CONSTRAINT run_leases_pkey PRIMARY KEY (run_id)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000,
    vacuum_truncate = off, vacuum_index_cleanup = on
);
CREATE INDEX run_leases_due_at_idx ON run_leases (due_at);

-- A foreign key would prove anew what the same statement has just written, and lock the run's row with each take; what it
-- does when a run is deleted, a trigger does. Its name comes before that of the one that deletes the events: after the
-- place is gone nobody appends. A row may move between the two tables meanwhile.
CREATE FUNCTION agent_runs_drop_place() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM run_leases WHERE run_id = OLD.id;
    DELETE FROM run_queue WHERE run_id = OLD.id;
    DELETE FROM run_leases WHERE run_id = OLD.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER drop_place AFTER DELETE ON agent_runs FOR EACH ROW EXECUTE FUNCTION agent_runs_drop_place();

-- Who is at work. All of the table is read for it, which has few rows; by an index it would take longer.
CREATE FUNCTION run_leases_at_work(OUT tenant_id BIGINT, OUT project_id BIGINT, OUT agent_id BIGINT, OUT runs INT)
RETURNS SETOF RECORD LANGUAGE plpgsql STABLE SET enable_seqscan = on
AS $$
BEGIN
    RETURN QUERY
    SELECT l.tenant_id, l.project_id, l.agent_id, count(*)::INT FROM run_leases AS l GROUP BY 1, 2, 3;
END $$;

-- Takes runs out of the line for a worker; see the port's `take`, whose words this is made of.
--
-- In the database, since then it is one statement: what it locks is free again within a ms, even if the worker stops
-- in the middle of its call. `lost` are runs whose workers were lost; nothing is taken then: such runs are put back
-- first, by who calls, who then says so by `is_rescued`. Of tenants with as many runs at work, those after
-- `last_tenant` come first, so that a worker of one run at a time goes around.
CREATE FUNCTION run_queue_take(
    provider_list TEXT[], most INT, lease_ms BIGINT, last_tenant BIGINT, is_rescued BOOLEAN,
    OUT tenants BIGINT[], OUT runs BIGINT[], OUT attempts BIGINT[], OUT lost BIGINT[]
)
LANGUAGE plpgsql
-- Plans that do not hang on statistics, which are old right after many runs were submitted.
SET plan_cache_mode = force_generic_plan SET jit = off
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_incremental_sort = off
AS $$
DECLARE
    clock TIMESTAMPTZ := clock_timestamp();
    is_due BOOLEAN := EXISTS (SELECT FROM run_queue WHERE due_at <= clock)
        OR EXISTS (SELECT FROM run_leases WHERE due_at <= clock);
    -- How many times its share of the runs is looked at of each lane.
    width BIGINT := 1;
    picked BIGINT[];
    is_short BOOLEAN;
BEGIN
    IF NOT is_due AND NOT EXISTS (SELECT FROM run_queue WHERE state = 0) THEN
        RETURN;
    END IF;
    -- A power cut may forget this transaction, which only puts the runs back: the beginning of an attempt is durable.
    PERFORM set_config('synchronous_commit', 'off', true);
    -- One at a time, or two could pass a limit together. Who has this waits for nothing else: locked rows are skipped.
    PERFORM pg_advisory_xact_lock(7811895311113479541);
    clock := clock_timestamp();
    IF is_due THEN
        -- Whose time has come is ready.
        UPDATE run_queue AS q SET state = 0, queued_at = q.due_at, due_at = NULL
        WHERE q.ctid = ANY (ARRAY(
            SELECT due.ctid FROM run_queue AS due WHERE due.due_at <= clock
            ORDER BY due.due_at LIMIT 1000 FOR UPDATE SKIP LOCKED
        ));
        -- A lease that was made longer is looked at again at its end; the run of one that ran out before its attempt
        -- began is ready again, unless it was deleted meanwhile.
        WITH due AS MATERIALIZED (
            SELECT l.ctid AS place, l.expires_at > clock AS holds FROM run_leases AS l
            WHERE l.due_at <= clock AND NOT (l.started AND l.expires_at <= clock)
            ORDER BY l.due_at LIMIT 1000 FOR UPDATE SKIP LOCKED
        ), longer AS (
            UPDATE run_leases AS l SET due_at = l.expires_at
            WHERE l.ctid = ANY (ARRAY(SELECT due.place FROM due WHERE due.holds))
        ), gone AS (
            DELETE FROM run_leases AS l WHERE l.ctid = ANY (ARRAY(SELECT due.place FROM due WHERE NOT due.holds))
            RETURNING l.*
        )
        INSERT INTO run_queue (run_id, tenant_id, project_id, agent_id, provider, priority, queued_at, last_seq, inputs)
        SELECT gone.run_id, gone.tenant_id, gone.project_id, gone.agent_id, gone.provider, gone.priority, gone.expires_at,
               gone.last_seq, gone.inputs
        FROM gone WHERE EXISTS (SELECT FROM agent_runs AS run WHERE run.id = gone.run_id);
        IF NOT is_rescued THEN
            lost := ARRAY(
                SELECT l.run_id FROM run_leases AS l
                WHERE l.due_at <= clock AND l.started AND l.expires_at <= clock ORDER BY l.due_at LIMIT 100
            );
            IF lost <> '{}' THEN
                RETURN;
            END IF;
        END IF;
    END IF;
    LOOP
        -- The first run of each lane: leaps over the index, from one lane to the next.
        WITH RECURSIVE lane AS (
            (SELECT q.tenant_id, q.project_id, q.agent_id, q.provider, q.priority, q.run_id
             FROM run_queue AS q WHERE q.state = 0
             ORDER BY q.tenant_id, q.project_id, q.agent_id, q.provider, q.priority DESC, q.run_id LIMIT 1)
            UNION ALL
            SELECT next.* FROM lane CROSS JOIN LATERAL (
                SELECT q.tenant_id, q.project_id, q.agent_id, q.provider, q.priority, q.run_id
                FROM run_queue AS q
                WHERE q.state = 0 AND (q.tenant_id, q.project_id, q.agent_id, q.provider)
                    > (lane.tenant_id, lane.project_id, lane.agent_id, lane.provider)
                ORDER BY q.tenant_id, q.project_id, q.agent_id, q.provider, q.priority DESC, q.run_id LIMIT 1
            ) AS next
        ), at_work AS MATERIALIZED (
            SELECT * FROM run_leases_at_work()
        ), of_tenant AS MATERIALIZED (
            SELECT at_work.tenant_id, sum(at_work.runs)::INT AS runs FROM at_work GROUP BY 1
        ), of_project AS MATERIALIZED (
            SELECT at_work.project_id, sum(at_work.runs)::INT AS runs FROM at_work GROUP BY 1
        ), lanes_with_room AS (
            SELECT lane.*, coalesce(of_tenant.runs, 0) AS tenant_runs, coalesce(of_project.runs, 0) AS project_runs,
                   coalesce(tenant.max_concurrent_runs - coalesce(of_tenant.runs, 0), most) AS tenant_room,
                   project.max_concurrent_agents - coalesce(of_project.runs, 0) AS project_room
            FROM lane
            JOIN tenants AS tenant ON tenant.id = lane.tenant_id
            JOIN projects AS project ON project.id = lane.project_id
            LEFT JOIN of_tenant ON of_tenant.tenant_id = lane.tenant_id
            LEFT JOIN of_project ON of_project.project_id = lane.project_id
            WHERE lane.provider = ANY (provider_list)
              AND coalesce(tenant.max_concurrent_runs > of_tenant.runs, true)
              AND project.max_concurrent_agents > coalesce(of_project.runs, 0)
              AND (lane.agent_id = 0 OR (lane.tenant_id, lane.agent_id) NOT IN (
                SELECT at_work.tenant_id, at_work.agent_id FROM at_work))
        ),
        -- The lanes that come next by their first runs: no other one can, so only these are read on. An agent has one
        -- run at a time, in whatever lanes it has some.
        of_agents AS (
            SELECT *, row_number() OVER (
                PARTITION BY tenant_id, CASE agent_id WHEN 0 THEN -run_id ELSE agent_id END
                ORDER BY priority DESC, run_id) AS agent_place
            FROM lanes_with_room
        ), of_projects AS (
            SELECT *, row_number() OVER (PARTITION BY project_id ORDER BY priority DESC, run_id) AS project_place
            FROM of_agents WHERE agent_place = 1
        ), of_tenants AS (
            SELECT *, row_number() OVER (
                PARTITION BY tenant_id ORDER BY priority DESC, project_runs + project_place, run_id) AS tenant_place
            FROM of_projects WHERE project_place <= project_room
        ), next_lane AS (
            SELECT tenant_id, project_id, agent_id, provider, tenant_runs, tenant_room, project_runs, project_room,
                   CASE agent_id WHEN 0 THEN least(most, tenant_room, project_room) ELSE 1 END AS can_give,
                   -- A share with some to spare.
                   width * (2 + most::BIGINT * 5 / 4 / count(*) OVER ()) AS looked_at
            FROM of_tenants WHERE tenant_place <= tenant_room
            ORDER BY tenant_runs + tenant_place, tenant_id <= last_tenant, tenant_id, tenant_place LIMIT most
        ),
        -- The same once more with all their runs.
        in_projects AS (
            SELECT next_lane.*, each.priority, each.run_id, row_number() OVER (
                PARTITION BY next_lane.project_id ORDER BY each.priority DESC, each.run_id) AS project_place
            FROM next_lane CROSS JOIN LATERAL (
                SELECT q.priority, q.run_id FROM run_queue AS q
                WHERE q.state = 0 AND q.tenant_id = next_lane.tenant_id AND q.project_id = next_lane.project_id
                  AND q.agent_id = next_lane.agent_id AND q.provider = next_lane.provider
                ORDER BY q.priority DESC, q.run_id LIMIT least(can_give, looked_at)
            ) AS each
        ), in_tenants AS (
            SELECT *, row_number() OVER (
                PARTITION BY tenant_id ORDER BY priority DESC, project_runs + project_place, run_id) AS tenant_place
            FROM in_projects WHERE project_place <= project_room
        )
        SELECT array_agg(chosen.run_id), bool_or(chosen.may_be_last) INTO picked, is_short
        FROM (
            SELECT run_id, project_place >= looked_at AND looked_at < can_give AS may_be_last
            FROM in_tenants WHERE tenant_place <= tenant_room
            ORDER BY tenant_runs + tenant_place, tenant_id <= last_tenant, tenant_id, tenant_place LIMIT most
        ) AS chosen;
        IF picked IS NULL THEN
            RETURN;
        END IF;
        -- If all runs of a lane were chosen that were looked at, the next one might have come before others.
        EXIT WHEN NOT is_short;
        width := width * 8;
    END LOOP;
    WITH free AS MATERIALIZED (
        SELECT q.ctid AS place FROM run_queue AS q
        WHERE q.run_id = ANY (picked) AND q.state = 0 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM run_queue AS q WHERE q.ctid = ANY (ARRAY(SELECT free.place FROM free)) RETURNING q.*
    ), taken AS (
        INSERT INTO run_leases AS l (run_id, tenant_id, project_id, agent_id, provider, priority, queued_at, last_seq,
                                     inputs, token, expires_at, due_at)
        SELECT gone.run_id, gone.tenant_id, gone.project_id, gone.agent_id, gone.provider, gone.priority, gone.queued_at,
               gone.last_seq, gone.inputs, nextval('run_attempts_id_seq'), clock + lease_ms * interval '1 ms',
               clock + lease_ms * interval '1 ms'
        FROM gone
        RETURNING l.tenant_id, l.run_id, l.token
    )
    SELECT array_agg(given.tenant_id), array_agg(given.run_id), array_agg(given.token) INTO tenants, runs, attempts
    FROM (
        SELECT taken.* FROM taken JOIN unnest(picked) WITH ORDINALITY AS next (run_id, place) USING (run_id) ORDER BY place
    ) AS given;
END $$;

INSERT INTO run_queue (run_id, tenant_id, project_id, agent_id, provider, state, queued_at, last_seq)
SELECT id, tenant_id, project_id, coalesce(agent_id, 0), provider, CASE status WHEN 'queued' THEN 0 ELSE 2 END,
       created_at, last_seq
FROM agent_runs WHERE status IN ('queued', 'paused');
INSERT INTO run_leases (run_id, tenant_id, project_id, agent_id, provider, priority, token, expires_at, due_at, queued_at,
                        last_seq, inputs, started, cancel_requested)
SELECT id, tenant_id, project_id, coalesce(agent_id, 0), provider, 0, attempt_id, lease_expires_at, lease_expires_at,
       created_at, last_seq, 0, true, cancel_requested_at IS NOT NULL
FROM agent_runs WHERE status IN ('running', 'waiting_approval');

DROP INDEX agent_runs_queued_idx;
DROP INDEX agent_runs_leased_idx;
ALTER TABLE agent_runs DROP CONSTRAINT agent_runs_lease_check, DROP COLUMN lease_expires_at;

CREATE TABLE approvals (
    id              BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    tenant_id       BIGINT NOT NULL,
    project_id      BIGINT NOT NULL,
    run_id          BIGINT NOT NULL,
    attempt_id      BIGINT,
    scope           TEXT NOT NULL,
    action          TEXT NOT NULL,
    intent_summary  TEXT NOT NULL,
    payload_json    JSONB NOT NULL,
    payload_hash    TEXT NOT NULL,
    status          TEXT NOT NULL DEFAULT 'pending',
    approvers       BIGINT[] NOT NULL DEFAULT '{}',
    expires_at      TIMESTAMPTZ NOT NULL,
    on_expiry       TEXT NOT NULL DEFAULT 'deny',
    decided_at      TIMESTAMPTZ,
    decided_by      BIGINT,
    note            TEXT,
    version         BIGINT NOT NULL DEFAULT 1,
    created_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT approvals_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id),
    CONSTRAINT approvals_tenant_id_id_key UNIQUE (tenant_id, id),
    -- Also 004's (run_id, scope).
    CONSTRAINT approvals_run_id_scope_action_payload_hash_key UNIQUE (tenant_id, run_id, scope, action, payload_hash),
    CONSTRAINT approvals_project_id_fkey FOREIGN KEY (tenant_id, project_id)
        REFERENCES projects (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT approvals_run_id_fkey FOREIGN KEY (tenant_id, run_id)
        REFERENCES agent_runs (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT approvals_attempt_id_fkey FOREIGN KEY (tenant_id, run_id, attempt_id)
        REFERENCES run_attempts (tenant_id, run_id, id) ON DELETE CASCADE,
    CONSTRAINT approvals_decided_by_fkey FOREIGN KEY (tenant_id, decided_by) REFERENCES users (tenant_id, id),
    CONSTRAINT approvals_scope_check CHECK (scope ~ '^[a-z0-9_]+(\.[a-z0-9_]+)*$' AND char_length(scope) <= 100),
    CONSTRAINT approvals_action_check CHECK (btrim(action) <> '' AND char_length(action) <= 200),
    CONSTRAINT approvals_intent_summary_check
        CHECK (btrim(intent_summary) <> '' AND char_length(intent_summary) <= 1000),
    CONSTRAINT approvals_payload_hash_check CHECK (payload_hash ~ '^[0-9a-f]{64}$'),
    CONSTRAINT approvals_status_check
        CHECK (status IN ('pending', 'approved', 'denied', 'expired', 'defaulted', 'void')),
    CONSTRAINT approvals_on_expiry_check CHECK (on_expiry IN ('approve', 'deny')),
    CONSTRAINT approvals_decided_at_check CHECK (
        (decided_at IS NOT NULL) = (status IN ('approved', 'denied', 'expired', 'defaulted'))
        AND (decided_by IS NULL OR status IN ('approved', 'denied'))),
    CONSTRAINT approvals_note_check CHECK (char_length(note) <= 2000)
);
CREATE INDEX approvals_project_id_idx ON approvals (tenant_id, project_id);
CREATE INDEX approvals_status_idx ON approvals (tenant_id, status, created_at);
CREATE INDEX approvals_decided_by_idx ON approvals (tenant_id, decided_by) WHERE decided_by IS NOT NULL;
-- The open ones of a run, which its end makes void.
CREATE INDEX approvals_run_id_idx ON approvals (tenant_id, run_id) WHERE status = 'pending';

CREATE TABLE approval_policies (
    id               BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    tenant_id        BIGINT NOT NULL,
    project_id       BIGINT,
    scope            TEXT NOT NULL,
    tool             TEXT,
    rule             TEXT NOT NULL DEFAULT 'ask',
    approvers        BIGINT[] NOT NULL DEFAULT '{}',
    expires_after_s  INT NOT NULL DEFAULT 3600,
    on_expiry        TEXT NOT NULL DEFAULT 'deny',
    enabled          BOOLEAN NOT NULL DEFAULT TRUE,
    version          BIGINT NOT NULL DEFAULT 1,
    created_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT approval_policies_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id),
    CONSTRAINT approval_policies_tenant_id_id_key UNIQUE (tenant_id, id),
    CONSTRAINT approval_policies_project_id_fkey FOREIGN KEY (tenant_id, project_id)
        REFERENCES projects (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT approval_policies_scope_check
        CHECK (scope ~ '^[a-z0-9_]+(\.[a-z0-9_]+)*$' AND char_length(scope) <= 100),
    CONSTRAINT approval_policies_tool_check
        CHECK (scope = 'tool' AND btrim(tool) <> '' AND char_length(tool) <= 1000 OR tool IS NULL),
    CONSTRAINT approval_policies_rule_check CHECK (rule IN ('allow', 'ask', 'deny')),
    CONSTRAINT approval_policies_approvers_check CHECK (cardinality(approvers) <= 100),
    CONSTRAINT approval_policies_expires_after_s_check CHECK (expires_after_s BETWEEN 1 AND 2592000),
    CONSTRAINT approval_policies_on_expiry_check CHECK (on_expiry IN ('approve', 'deny'))
);
CREATE INDEX approval_policies_project_id_idx ON approval_policies (tenant_id, project_id);

CREATE TABLE effects (
    id               BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    tenant_id        BIGINT NOT NULL,
    run_id           BIGINT NOT NULL,
    attempt_id       BIGINT NOT NULL,
    kind             TEXT NOT NULL,
    idempotency_key  TEXT NOT NULL,
    expected_json    JSONB NOT NULL,
    status           TEXT NOT NULL DEFAULT 'pending',
    approval_id      BIGINT,
    result           JSONB,
    error            TEXT,
    ended_at         TIMESTAMPTZ,
    version          BIGINT NOT NULL DEFAULT 1,
    created_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT effects_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id),
    CONSTRAINT effects_tenant_id_id_key UNIQUE (tenant_id, id),
    CONSTRAINT effects_run_id_idempotency_key_key UNIQUE (tenant_id, run_id, idempotency_key),
    CONSTRAINT effects_run_id_fkey FOREIGN KEY (tenant_id, run_id)
        REFERENCES agent_runs (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT effects_attempt_id_fkey FOREIGN KEY (tenant_id, run_id, attempt_id)
        REFERENCES run_attempts (tenant_id, run_id, id) ON DELETE CASCADE,
    CONSTRAINT effects_approval_id_fkey FOREIGN KEY (tenant_id, approval_id)
        REFERENCES approvals (tenant_id, id) ON DELETE SET NULL (approval_id),
    CONSTRAINT effects_kind_check CHECK (kind IN ('push', 'pull_request', 'comment', 'merge', 'deployment')),
    CONSTRAINT effects_idempotency_key_check
        CHECK (btrim(idempotency_key) <> '' AND char_length(idempotency_key) <= 200),
    CONSTRAINT effects_status_check CHECK (status IN ('pending', 'done', 'abandoned')),
    CONSTRAINT effects_ended_at_check CHECK ((ended_at IS NULL) = (status = 'pending'))
);
CREATE INDEX effects_approval_id_idx ON effects (tenant_id, approval_id) WHERE approval_id IS NOT NULL;
-- What may be half done.
CREATE INDEX effects_status_idx ON effects (tenant_id, created_at) WHERE status = 'pending';

CREATE TABLE run_inputs (
    id            BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    tenant_id     BIGINT NOT NULL,
    run_id        BIGINT NOT NULL,
    user_id       BIGINT,
    text          TEXT NOT NULL,
    attempt_id    BIGINT,
    delivered_at  TIMESTAMPTZ,
    version       BIGINT NOT NULL DEFAULT 1,
    created_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT run_inputs_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id),
    CONSTRAINT run_inputs_tenant_id_id_key UNIQUE (tenant_id, id),
    CONSTRAINT run_inputs_run_id_fkey FOREIGN KEY (tenant_id, run_id)
        REFERENCES agent_runs (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT run_inputs_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    CONSTRAINT run_inputs_attempt_id_fkey FOREIGN KEY (tenant_id, run_id, attempt_id)
        REFERENCES run_attempts (tenant_id, run_id, id) ON DELETE CASCADE,
    CONSTRAINT run_inputs_text_check CHECK (btrim(text) <> '' AND char_length(text) <= 50000)
);
CREATE INDEX run_inputs_run_id_idx ON run_inputs (tenant_id, run_id);
CREATE INDEX run_inputs_user_id_idx ON run_inputs (tenant_id, user_id) WHERE user_id IS NOT NULL;
