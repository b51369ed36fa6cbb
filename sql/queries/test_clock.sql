-- name: read
select ahead_us, version from shouyin.test_clock;

-- name: take
-- Lets one caller move the clock. No row: somebody else does. $1 mover, $2 machine's now, $3 until when
update shouyin.test_clock set mover = $1, moving_until = $3
where mover is null or moving_until <= $2
returning id;

-- name: move
-- Forward only. No row: the mover took too long, and somebody else moves. $1 mover, $2 ahead_us, $3 until when it may move
update shouyin.test_clock set ahead_us = greatest(ahead_us, $2), moving_until = $3
where mover = $1
returning ahead_us, version;

-- name: let_go
-- $1 mover
update shouyin.test_clock set mover = null, moving_until = null where mover = $1 returning id;

-- name: begin_work
-- Before a worker looks for rows of a kind. $1 worker, $2 kind, $3 until
insert into shouyin.test_clock_work (worker, kind, until) values ($1, $2, $3)
on conflict (worker, kind) do update set until = excluded.until
returning kind;

-- name: end_work
-- $1 worker, $2 kind
delete from shouyin.test_clock_work where worker = $1 and kind = $2 returning kind;

-- name: unsettled
-- What is due and not done, by kind, and what workers have in hand: seen at one instant, so that a row on its way from the
-- one to the other cannot be missed. Rows that failed and are tried again later are settled. $1 the clock's time, $2 the
-- machine's, $3 the days before a plan's end on which it is announced, $4 the last date whose deductions are due, $5 today.
--
-- Every kind of due work is one branch.
select kind, total from (
  select 'payments' as kind, count(*) as total from shouyin.payment where check_at <= $1
  union all
  select 'refunds', count(*) from shouyin.refund where check_at <= $1
  union all
  select 'notifications', count(*) from shouyin.notification where due_at <= $1
  union all
  select 'events', count(*) from shouyin.event where dispatched_at is null
  union all
  select 'flows', count(*) from shouyin.flow_run where due_at <= $1
  union all
  select 'agreements', count(*) from shouyin.cycle_payment where check_at <= $1
  union all
  select 'cycles', count(*) from shouyin.cycle_payment
  where status = 'ACTIVE' and not ending and open_deduction_id is null and next_deduction_on <= $4
  union all
  select 'announcements', count(*) from shouyin.cycle_payment where status = 'ACTIVE' and not ending and notice_on <= $5
  union all
  select 'deductions', count(*) from shouyin.deduction d
  where d.attempt_at <= $1 and (
    d.attempt_at = '-infinity'
    or not exists (
      select from shouyin.deduction_hold h where h.merchant_account_id = d.merchant_account_id and h.held_until > $1))
  union all
  select 'plan', count(*)
  from shouyin.activation a
  where exists (
    select from unnest($3::smallint[]) as d
    where a.plan_expires_at > $1 and a.plan_expires_at <= $1 + d * interval '24 hours'
      and (a.plan_warned_days is null or a.plan_warned_days > d))
  union all
  select 'work on ' || kind, count(*) from shouyin.test_clock_work where until > $2 group by kind
) as waiting
where total > 0;

-- name: days
-- What happened from $1 until before $2, by business day and kind; flow runs that were done count as null.
select (created_at at time zone 'Asia/Shanghai')::date as day, kind, count(*) as total
from shouyin.event where created_at >= $1 and created_at < $2
group by 1, 2
union all
select (finished_at at time zone 'Asia/Shanghai')::date, null, count(*)
from shouyin.flow_run where status = 'DONE' and finished_at >= $1 and finished_at < $2
group by 1
order by 1, 2;

-- name: strangers
-- Enabled merchant accounts that are not at the sandbox $1.
select id, provider, name from shouyin.merchant_account
where enabled and coalesce(settings ->> 'gateway', '') <> $1
  and not starts_with(coalesce(settings ->> 'gateway', ''), $1 || '/')
order by id;
