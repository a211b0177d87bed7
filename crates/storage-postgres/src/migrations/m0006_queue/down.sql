DROP TABLE run_inputs;
DROP TABLE effects;
DROP TABLE approval_policies;
DROP TABLE approvals;

ALTER TABLE agent_runs ADD COLUMN lease_expires_at TIMESTAMPTZ;
UPDATE agent_runs AS run SET lease_expires_at = place.expires_at, last_seq = place.last_seq
FROM run_leases AS place WHERE place.run_id = run.id AND run.status IN ('running', 'waiting_approval');
UPDATE agent_runs SET lease_expires_at = now()
WHERE status IN ('running', 'waiting_approval') AND lease_expires_at IS NULL;
ALTER TABLE agent_runs ADD CONSTRAINT agent_runs_lease_check CHECK (
    (lease_expires_at IS NOT NULL) = (status IN ('running', 'waiting_approval'))
    AND (lease_expires_at IS NULL OR attempt_id IS NOT NULL));
DROP TRIGGER drop_place ON agent_runs;
DROP FUNCTION agent_runs_drop_place();
DROP FUNCTION run_queue_take;
DROP FUNCTION run_leases_at_work;
DROP TABLE run_queue, run_leases;
CREATE INDEX agent_runs_queued_idx ON agent_runs (id) WHERE status = 'queued';
CREATE INDEX agent_runs_leased_idx ON agent_runs (id) WHERE status IN ('running', 'waiting_approval');

DROP INDEX agent_runs_ticket_id_idx;
DROP INDEX agent_runs_repository_id_idx;
DROP INDEX agent_runs_agent_id_status_idx;
DROP INDEX agent_runs_started_at_idx;
CREATE INDEX agent_runs_ticket_id_idx ON agent_runs (tenant_id, ticket_id);
CREATE INDEX agent_runs_repository_id_idx ON agent_runs (tenant_id, repository_id);
CREATE INDEX agent_runs_agent_id_status_idx ON agent_runs (tenant_id, agent_id, status);
CREATE INDEX agent_runs_started_at_idx ON agent_runs (tenant_id, started_at);
UPDATE agent_runs SET stop_reason = 'error' WHERE stop_reason IN ('hung', 'looping');
ALTER TABLE agent_runs
    DROP COLUMN parent_run_id,
    DROP COLUMN priority,
    DROP COLUMN run_at,
    DROP COLUMN unique_key,
    DROP COLUMN failure_count,
    DROP COLUMN pause_requested_at,
    DROP CONSTRAINT agent_runs_stop_reason_check,
    ADD CONSTRAINT agent_runs_stop_reason_check CHECK (stop_reason IN
        ('end_turn', 'error', 'max_steps', 'max_tokens_exceeded', 'cancelled', 'no_tool_call', 'invalid_tool_call',
         'max_cost', 'max_time', 'worker_lost'));

ALTER TABLE run_attempts
    ADD CONSTRAINT run_attempts_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id);
ALTER TABLE agent_runs ADD CONSTRAINT agent_runs_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id);

ALTER TABLE tenants DROP COLUMN max_concurrent_runs;
