DROP TABLE code_diffs;
ALTER TABLE tickets DROP CONSTRAINT tickets_worktree_id_fkey;
DROP TABLE worktrees;
