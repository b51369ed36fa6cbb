-- name: migration_table
select to_regclass('shouyin.migration') is not null as present;

-- name: migrations
select name from shouyin.migration;
