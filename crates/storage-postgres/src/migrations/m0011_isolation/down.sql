DROP FUNCTION agent_events_drop_month(TEXT);

CREATE OR REPLACE FUNCTION agent_events_add_month(name TEXT) RETURNS BOOLEAN LANGUAGE plpgsql AS $$
DECLARE
    month TIMESTAMP := to_date(right(name, 7), 'YYYY_MM');
    starts TIMESTAMPTZ := month AT TIME ZONE 'UTC';
    ends TIMESTAMPTZ := (month + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN FALSE;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE agent_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES,
        CONSTRAINT %I CHECK (ts >= %L AND ts < %L))', name, name || '_month_check', starts, ends);
    LOCK TABLE agent_events_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('WITH late AS (DELETE FROM agent_events_default WHERE ts >= %L AND ts < %L RETURNING *)
        INSERT INTO %I SELECT * FROM late', starts, ends, name);
    EXECUTE format('ALTER TABLE agent_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, starts, ends);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', name, name || '_month_check');
    RETURN TRUE;
END
$$;
GRANT EXECUTE ON FUNCTION agent_events_add_month(TEXT) TO PUBLIC;

DO $$
DECLARE
    isolated REGCLASS;
BEGIN
    FOR isolated IN SELECT polrelid FROM pg_policy WHERE polname = 'of_all' LOOP
        EXECUTE format('DROP POLICY IF EXISTS of_tenant ON %s', isolated);
        EXECUTE format('DROP POLICY of_all ON %s', isolated);
        EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', isolated);
        EXECUTE format('REVOKE ALL ON %s FROM lime_app, lime_system', isolated);
    END LOOP;
    EXECUTE format('REVOKE USAGE ON ALL SEQUENCES IN SCHEMA %I FROM lime_app, lime_system', current_schema());
    EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM lime_app, lime_system', current_schema());
END
$$;
REVOKE ALL ON run_messages FROM lime_app, lime_system;
REVOKE SELECT ON seaql_migrations FROM PUBLIC;
DROP FUNCTION lime_isolate(REGCLASS);
-- The roles stay: other databases of the server may use them.
