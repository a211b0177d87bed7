DROP TABLE tool_calls;
DROP VIEW run_messages;
DROP TABLE agent_events;
DROP TABLE run_steps;
ALTER TABLE agent_runs DROP CONSTRAINT agent_runs_attempt_id_fkey;
DROP TABLE run_attempts;
DROP TABLE agent_runs;
