DROP TRIGGER drop_reservations ON agent_runs;
DROP FUNCTION agent_runs_free_budgets();
DROP FUNCTION budgets_free;
DROP FUNCTION budgets_hold;
DROP TABLE budget_entries, budget_reservations, budget_counters, project_budgets;
DROP FUNCTION budget_entries_append_only();

UPDATE agent_runs SET stop_reason = 'max_cost' WHERE stop_reason = 'max_budget';
ALTER TABLE agent_runs
    DROP CONSTRAINT agent_runs_stop_reason_check,
    ADD CONSTRAINT agent_runs_stop_reason_check CHECK (stop_reason = ANY ('{
        end_turn, error, max_steps, max_tokens_exceeded, cancelled, no_tool_call, invalid_tool_call, max_cost,
        max_time, worker_lost, hung, looping}'));

ALTER TABLE tenants DROP COLUMN time_zone;
