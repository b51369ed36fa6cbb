-- What is old enough goes, at most $2 rows a statement. $1 the instant before which it happened. The age indexes are BRIN:
-- rows arrive in the order of their age, and a btree on it would cost every insert.

-- name: flow_runs
delete from shouyin.flow_run
where id = any (array(
  select id from shouyin.flow_run where created_at < $1 and status = 'DONE' limit $2 for update skip locked))
returning id;

-- name: events
delete from shouyin.event
where id = any (array(
  select e.id from shouyin.event e
  where e.created_at < $1 and e.dispatched_at is not null
    and not exists (select from shouyin.flow_run r where r.event_id = e.id)
  limit $2 for update skip locked))
returning id;

-- name: notifications
-- A provider that sent one of these again would have it applied again, which changes nothing.
delete from shouyin.notification
where id = any (array(
  select id from shouyin.notification where received_at < $1 and due_at is null limit $2 for update skip locked))
returning id;

-- name: differences
delete from shouyin.difference
where id = any (array(select id from shouyin.difference where last_seen_at < $1 limit $2 for update skip locked))
returning id;
