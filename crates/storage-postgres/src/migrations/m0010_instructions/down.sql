DROP TABLE repository_configs;
UPDATE agent_runs SET stop_reason = 'error' WHERE stop_reason = 'tool_denied';
ALTER TABLE agent_runs
    DROP CONSTRAINT agent_runs_stop_reason_check,
    ADD CONSTRAINT agent_runs_stop_reason_check CHECK (stop_reason = ANY ('{
        end_turn, error, max_steps, max_tokens_exceeded, cancelled, no_tool_call, invalid_tool_call, max_cost,
        max_time, worker_lost, hung, looping, max_budget}'));
DROP TABLE default_agent_tools;
DROP TABLE custom_instructions;
DROP TABLE default_agent_instructions;
DROP FUNCTION text_sha256;
