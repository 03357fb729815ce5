-- The app's database and its user, who owns it and is no superuser: those can run programs on the server.
-- psql takes the password from POSTGRES_PASSWORD, and no log shows it.
\set password `printf %s "$POSTGRES_PASSWORD"`
SET log_min_error_statement = panic;
CREATE ROLE app LOGIN PASSWORD :'password';
CREATE DATABASE app OWNER app;
-- The app knows that password. Without one, a superuser can come from this container only.
ALTER ROLE CURRENT_USER PASSWORD NULL;
