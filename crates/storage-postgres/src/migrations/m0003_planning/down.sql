DROP TABLE tickets;
DROP TABLE boards;
DROP TABLE projects;
