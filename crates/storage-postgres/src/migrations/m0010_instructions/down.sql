DROP TABLE repository_configs;
DROP TABLE default_agent_tools;
DROP TABLE custom_instructions;
DROP TABLE default_agent_instructions;
DROP FUNCTION text_sha256;
