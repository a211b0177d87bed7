-- Whoever works for one tenant sees no other's rows, whatever a statement asks. The application works in two roles that
-- own nothing: lime_app for one tenant, which the setting lime.tenant names, and lime_system for all of them. Roles belong
-- to the whole server, and several databases of it may be migrated at once.
DO $$
DECLARE
    name TEXT;
BEGIN
    FOREACH name IN ARRAY ARRAY['lime_app', 'lime_system'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            END IF;
            IF NOT pg_has_role(current_user, name, 'MEMBER') THEN
                EXECUTE format('GRANT %I TO CURRENT_USER', name);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- somebody else did the same at once
        END;
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), name);
    END LOOP;
END
$$;

-- Isolates a table with a column `tenant_id`. Every migration calls it for each table that it makes.
--   * Comparing with nullif makes an unset tenant, which is an empty text once one was set, no tenant at all.
--   * FORCE, so that it holds for the owner too.
CREATE FUNCTION lime_isolate(isolated REGCLASS) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', isolated);
    EXECUTE format('CREATE POLICY of_tenant ON %s TO lime_app
        USING (tenant_id = nullif(current_setting(''lime.tenant'', true), '''')::bigint)', isolated);
    EXECUTE format('CREATE POLICY of_all ON %s TO lime_system USING (true)', isolated);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO lime_app, lime_system', isolated);
END
$$;

SELECT lime_isolate(pg_class.oid)
FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attname = 'tenant_id' AND NOT attisdropped
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p');

-- The tenant itself: its own row, to read.
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON tenants TO lime_app USING (id = nullif(current_setting('lime.tenant', true), '')::bigint);
CREATE POLICY of_all ON tenants TO lime_system USING (true);
GRANT SELECT ON tenants TO lime_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON tenants TO lime_system;
-- People over all tenants, and their sessions: for authentication only.
ALTER TABLE identities ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY of_all ON identities TO lime_system USING (true);
ALTER TABLE login_sessions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY of_all ON login_sessions TO lime_system USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON identities, login_sessions TO lime_system;
GRANT SELECT ON run_messages TO lime_app, lime_system;
-- Looked at before it is known whether there are roles.
GRANT SELECT ON seaql_migrations TO PUBLIC;
DO $$
BEGIN
    EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA %I TO lime_app, lime_system', current_schema());
END
$$;

-- What owns the log's months makes and drops them for the application, which owns nothing.
CREATE OR REPLACE FUNCTION agent_events_add_month(name TEXT) RETURNS BOOLEAN
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    month TIMESTAMP := to_date(right(name, 7), 'YYYY_MM');
    starts TIMESTAMPTZ := month AT TIME ZONE 'UTC';
    ends TIMESTAMPTZ := (month + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF name !~ '^agent_events_[0-9]{4}_[0-9]{2}$' THEN
        RAISE EXCEPTION 'not the name of a month of the log: %', name USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF to_regclass(name) IS NOT NULL THEN
        RETURN FALSE;
    END IF;
    -- Made aside and attached, so that readers and writers of the other months go on; the check spares a scan.
    EXECUTE format('CREATE TABLE %I (LIKE agent_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES,
        CONSTRAINT %I CHECK (ts >= %L AND ts < %L))', name, name || '_month_check', starts, ends);
    PERFORM lime_isolate(name::regclass);
    LOCK TABLE agent_events_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('WITH late AS (DELETE FROM agent_events_default WHERE ts >= %L AND ts < %L RETURNING *)
        INSERT INTO %I SELECT * FROM late', starts, ends, name);
    EXECUTE format('ALTER TABLE agent_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, starts, ends);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', name, name || '_month_check');
    RETURN TRUE;
END
$$;

-- Drops the table of a month, if it is there.
CREATE FUNCTION agent_events_drop_month(name TEXT) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF name !~ '^agent_events_[0-9]{4}_[0-9]{2}$' THEN
        RAISE EXCEPTION 'not the name of a month of the log: %', name USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('DROP TABLE IF EXISTS %I', name);
END
$$;

REVOKE EXECUTE ON FUNCTION agent_events_add_month(TEXT), agent_events_drop_month(TEXT), lime_isolate(REGCLASS) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION agent_events_add_month(TEXT), agent_events_drop_month(TEXT) TO lime_system;
