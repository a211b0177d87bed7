DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('run_queue_take'::regproc), ' AND tenant.deleted_at IS NULL', '');
END $$;
DROP FUNCTION tenants_check_open;
ALTER TABLE agent_runs DROP COLUMN created_by, DROP COLUMN created_by_key;
DROP TABLE api_keys;
DROP TABLE user_roles;
DROP TABLE roles;
ALTER TABLE tenants DROP COLUMN logo_url, DROP COLUMN settings_json, DROP COLUMN deleted_at;
DROP TABLE login_sessions;
ALTER TABLE users DROP COLUMN identity_id;
DROP TABLE identities;
