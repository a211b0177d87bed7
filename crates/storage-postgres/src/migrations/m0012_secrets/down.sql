DROP TABLE env_vars;
DROP TABLE env_var_sets;
DROP TABLE tenant_keys;
