-- name: migration_table
select to_regclass('shouyin.migration') is not null as present;

-- name: waiting
-- What waits for the workers, for the metrics. Each part leans on the partial index of what is unfinished.
select
  (select min(received_at) from shouyin.notification where due_at is not null) as notification_since,
  (select created_at from shouyin.event where dispatched_at is null order by id limit 1) as event_since,
  (select count(*) from shouyin.flow_run where status = 'FAILED') as flows_abandoned;

-- name: migrations
select name from shouyin.migration;
