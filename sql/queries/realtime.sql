-- Statements of the relay, on its own session; see app/realtime/relay.py.

-- name: try_lead
-- Never the waiting form: a session that waits for a lock holds a snapshot, and nothing could be vacuumed meanwhile.
select pg_try_advisory_lock($1);

-- name: hint
-- Tells the leading relay, in whatever process it is, that a commit may have left keys. Commits without waiting for a flush.
select pg_notify('shouyin_hint', '');

-- name: drain
-- Deletes up to $1 waiting keys, folds them and announces them, all in one transaction: announced if and only if
-- deleted. Order is not looked at, so that a row committed late is taken when it appears. $2 is the payload size in bytes at which
-- a further NOTIFY begins; one key more may go above it. Reads the table from its first page; no index helps or is needed.
with taken as (
  delete from shouyin.change
  where ctid = any (array(select ctid from shouyin.change limit $1))
  returning subject, row_id, version, order_id, changed_at
), folded as (
  select subject || ',' || row_id || ',' || coalesce(max(version)::text, '') || ',' || coalesce(max(order_id)::text, '') as key
  from taken
  group by subject, row_id
), placed as (
  select key, sum(octet_length(key) + 1) over (rows unbounded preceding) / $2::bigint as part
  from folded
), payloads as (
  select '1|' || string_agg(key, ';') as payload
  from placed
  group by part
)
select
  (select count(*) from taken) as rows,
  (select count(*) from folded) as keys,
  (select extract(epoch from clock_timestamp() - min(changed_at))::float8 from taken) as lag_s,
  (select count(pg_notify('shouyin_change', payload)) from payloads) as announcements;

-- name: small
-- Whether the table is vacuumed in milliseconds: nothing is announced meanwhile.
select pg_relation_size('shouyin.change') < 64 * 1024 * 1024;

-- name: vacuum
-- Keeps a drain from reading past what it deleted. A role that may not is told so by a warning, and autovacuum serves.
vacuum (skip_locked, truncate, analyze false) shouyin.change;

-- name: beat
-- Proof that the session answers and still listens.
select exists (select from pg_listening_channels() channel where channel = $1);
