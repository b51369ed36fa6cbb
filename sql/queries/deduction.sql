-- Deductions: one due date of one cycle each. Whoever changes several rows locks the cycle first, then its payment, then the
-- deduction.

-- name: open_due
-- Every cycle that is due and has no open deduction gets one, and its next date: due dates are charged one at a time, in order.
-- Dates before $4 were missed for too long and are passed over. Leans on cycle_payment_due.
-- $1 the last date that is due, $2 now, $3 how many, $4 the oldest date that is charged late, $5 days between notice and deduction
with due as (
  select id, binding_id, merchant_account_id, order_id, next_deduction_on, deductions, price_fen, correlation_id, interval_days
  from shouyin.cycle_payment
  where status = 'ACTIVE' and not ending and open_deduction_id is null and next_deduction_on <= $1
  order by next_deduction_on, id limit $3 for no key update skip locked
), opened as (
  insert into shouyin.deduction (cycle_payment_id, binding_id, merchant_account_id, due_on, sequence, price_fen, number, status, created_at,
    updated_at, finished_at)
  select id, binding_id, merchant_account_id, next_deduction_on, deductions + 1, price_fen,
    'SD' || to_char(next_deduction_on, 'YYYYMMDD') || upper(substr(replace(gen_random_uuid()::text, '-', ''), 1, 8))
      || upper(substr(replace(gen_random_uuid()::text, '-', ''), 1, 4)),
    case when next_deduction_on < $4 then 'SKIPPED' else 'WAITING' end, $2, $2,
    case when next_deduction_on < $4 then $2::timestamptz end
  from due
  -- a date that was changed to one that has had its deduction
  on conflict (cycle_payment_id, due_on) do nothing
  returning id, cycle_payment_id, status, due_on
), moved as (
  update shouyin.cycle_payment c
  set open_deduction_id = case when o.status = 'WAITING' then o.id end, deductions = c.deductions + 1,
    next_deduction_on = c.next_deduction_on + c.interval_days,
    notice_on = case when $5::integer > 0 then c.next_deduction_on + c.interval_days - $5::integer end, updated_at = $2
  from due left join opened o on o.cycle_payment_id = due.id
  -- said twice: as an array it is looked up in the index, whatever number of rows the planner thinks are due
  where c.id = due.id and c.id = any(array(select due.id from due))
  returning c.id
), happened as (
  insert into shouyin.event (kind, cycle_payment_id, deduction_id, order_id, correlation_id, created_at)
  select case o.status when 'WAITING' then 'deduction.due' else 'deduction.skipped' end, due.id, o.id, due.order_id,
    due.correlation_id, $2
  from opened o join due on due.id = o.cycle_payment_id
)
select id from moved;

-- name: of_cycle
-- The history, newest first. $1 cycle, $2 due before this date or null, $3 how many
select id, cycle_payment_id, due_on, sequence, price_fen, status, order_id, payment_id, attempts, tries, attempt_at, failure, created_at,
  updated_at, finished_at
from shouyin.deduction where cycle_payment_id = $1 and ($2::date is null or due_on < $2)
order by due_on desc limit $3;

-- name: payments
-- Every attempt of these deductions, oldest first. Leans on payment_by_deduction. $1 deductions
select id, binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
  refunded_amount_fen, reserved_refund_fen, subject, out_trade_no, transaction_id, status, failure, action, openid,
  app_id, client_address, return_url, created_by, correlation_id, expires_at, created_at, updated_at, paid_at, late,
  check_at, check_attempts, cycle_payment_id, deduction_id, version
from shouyin.payment where deduction_id = any($1::bigint[]) order by deduction_id, id;

-- name: open_attempt
-- See shouyin.open_attempt.
select refusal, order_amount_fen, payment_id from shouyin.open_attempt($1, $2, $3, $4);

-- name: copy_order
-- See shouyin.copy_order. $1 cycle, $2 price_fen
select shouyin.copy_order(c.binding_id, c.order_id, $2) as id from shouyin.cycle_payment c where c.id = $1;

-- name: claim_due
-- Takes deductions to work on, for $2 (the lease) at most $3. Of a merchant account that is held only those that were woken:
-- money has come, or their cycle is over. Leans on deduction_to_do.
with taken as (
  update shouyin.deduction
  set attempt_at = $2, calls = calls + 1
  where id = any (array(
    select d.id from shouyin.deduction d
    where d.attempt_at <= $1 and (
      d.attempt_at = '-infinity'
      or not exists (
        select from shouyin.deduction_hold h where h.merchant_account_id = d.merchant_account_id and h.held_until > $1))
    order by d.attempt_at, d.id limit $3 for no key update skip locked))
  returning id, cycle_payment_id, due_on, sequence, price_fen, status, order_id, payment_id, attempts, tries,
    settled_payment_id, calls, attempt_at
)
select t.id, t.cycle_payment_id, t.due_on, t.sequence, t.price_fen, t.status, t.order_id, t.payment_id, t.attempts, t.tries,
  t.settled_payment_id, t.calls, t.attempt_at, c.status as cycle_status, c.ending, c.agreement_no, c.external_agreement_no, c.scene,
  c.subject, c.plan_on, c.plan_changes, c.interval_days, c.merchant_account_id, c.provider, c.correlation_id,
  p.status as payment_status, p.out_trade_no, p.created_at as payment_created_at, p.expires_at as payment_expires_at
from taken t
join shouyin.cycle_payment c on c.id = t.cycle_payment_id
left join shouyin.payment p on p.id = t.payment_id;

-- name: later
-- When it is worked on next, unless something woke it since. $1 id, $2 attempt_at, $3 the lease that the claim set, $4 calls
update shouyin.deduction set attempt_at = $2, calls = $4 where id = $1 and attempt_at = $3 returning id;

-- name: lock_cycle
-- The cycle's lock, which comes before those of its payments and deductions, and whether it goes on. $1 deduction
select c.id, c.status = 'ACTIVE' and not c.ending as goes_on from shouyin.cycle_payment c
where c.id = (select d.cycle_payment_id from shouyin.deduction d where d.id = $1)
for no key update;

-- name: lock
-- With the cycle it is of, whose lock is held. $1 id
select d.id, d.cycle_payment_id, d.status, d.payment_id, d.attempts, d.tries, d.settled_payment_id, d.price_fen, d.due_on, d.order_id,
  c.status as cycle_status, c.ending, c.plan_on, c.interval_days, c.failed_dates, c.correlation_id, c.order_id as cycle_order_id
from shouyin.deduction d join shouyin.cycle_payment c on c.id = d.cycle_payment_id
where d.id = $1 for no key update of d;

-- name: paid
-- The provider has moved its plan on by an interval, and somebody who asked about the agreement meanwhile may have read so
-- already: a plan that stands nearer to the next date than to the day of this payment is not moved again.
-- $1 id, $2 the payment that took it, $3 now, $4 when the agreement, which is alive as it seems, is asked about next, $5 a
-- merchant account that is held no longer, or null
with released as (
  delete from shouyin.deduction_hold where merchant_account_id = $5
), done as (
  update shouyin.deduction
  set status = 'PAID', payment_id = $2, settled_payment_id = $2, attempt_at = null, failure = null, updated_at = $3, finished_at = $3
  where id = $1 and status <> 'PAID'
  returning id, cycle_payment_id, order_id, (
    select (p.paid_at at time zone 'Asia/Shanghai')::date from shouyin.payment p where p.id = $2) as paid_on
), counted as (
  update shouyin.cycle_payment c
  set paid_deductions = c.paid_deductions + 1, failed_dates = 0, failure = case when c.status = 'ACTIVE' then null else c.failure end,
    plan_on = case when c.plan_on < done.paid_on + (c.interval_days + 1) / 2 then c.plan_on + c.interval_days else c.plan_on end,
    open_deduction_id = case when c.open_deduction_id = done.id then null else c.open_deduction_id end,
    check_at = case when c.status = 'ACTIVE' and not c.ending then $4 else c.check_at end, updated_at = $3
  from done where c.id = done.cycle_payment_id
  returning c.id, c.correlation_id
)
insert into shouyin.event (kind, payment_id, cycle_payment_id, deduction_id, order_id, correlation_id, created_at)
select 'deduction.paid', $2, done.cycle_payment_id, done.id, done.order_id, counted.correlation_id, $3
from done, counted
returning deduction_id as id;

-- name: retry
-- An attempt has failed, and there will be another. $1 id, $2 the payment that failed, $3 failure, $4 attempt_at, $5 now,
-- $6 1 where it counts as a try, 0 where nobody could have paid
with waiting as (
  update shouyin.deduction
  set settled_payment_id = $2, failure = $3, attempt_at = $4, tries = tries + $6::integer, calls = 0, updated_at = $5
  where id = $1 and status = 'CHARGING' and payment_id = $2
  returning id, cycle_payment_id
)
update shouyin.cycle_payment c set failure = $3, updated_at = $5
from waiting where c.id = waiting.cycle_payment_id
returning c.id;

-- name: failed
-- No attempt is left. $1 id, $2 the last payment, $3 failure, $4 now
with done as (
  update shouyin.deduction
  set status = 'FAILED', settled_payment_id = $2, failure = $3, tries = tries + 1, attempt_at = null, updated_at = $4, finished_at = $4
  where id = $1 and status = 'CHARGING'
  returning id, cycle_payment_id, order_id
), counted as (
  update shouyin.cycle_payment c
  set failed_dates = c.failed_dates + 1, failure = $3,
    open_deduction_id = case when c.open_deduction_id = done.id then null else c.open_deduction_id end, updated_at = $4
  from done where c.id = done.cycle_payment_id
  returning c.id, c.failed_dates, c.correlation_id
), happened as (
  insert into shouyin.event (kind, payment_id, cycle_payment_id, deduction_id, order_id, correlation_id, created_at)
  select 'deduction.failed', $2, done.cycle_payment_id, done.id, done.order_id, counted.correlation_id, $4
  from done, counted
)
select id, failed_dates from counted;

-- name: await_payment
-- The provider works on it: whoever learns its end wakes it. Not where that was quicker; its lock is held. $1 id, $2 the payment
update shouyin.deduction d set attempt_at = null
where d.id = $1 and d.status = 'CHARGING' and d.payment_id = $2
  and exists (select from shouyin.payment p where p.id = $2 and p.status = 'PENDING')
returning d.id;

-- name: skip
-- Nothing was or will be taken for this date, and nobody failed to pay. $1 id, $2 the status it has, $3 why or null,
-- $4 now
with done as (
  update shouyin.deduction
  set status = 'SKIPPED', settled_payment_id = payment_id, attempt_at = null, failure = coalesce($3, failure), updated_at = $4, finished_at = $4
  where id = $1 and status = $2
  returning id, cycle_payment_id, order_id
), counted as (
  update shouyin.cycle_payment c
  set open_deduction_id = case when c.open_deduction_id = done.id then null else c.open_deduction_id end, updated_at = $4
  from done where c.id = done.cycle_payment_id
  returning c.id, c.correlation_id
)
insert into shouyin.event (kind, cycle_payment_id, deduction_id, order_id, correlation_id, created_at)
select 'deduction.skipped', done.cycle_payment_id, done.id, done.order_id, counted.correlation_id, $4
from done, counted
returning deduction_id as id;

-- name: before_sending
-- What may have changed since it was claimed: whether its cycle goes on, and whether its order was paid in another way. $1 id
select c.status = 'ACTIVE' and not c.ending as goes_on, exists (
  select from shouyin.payment p
  where p.binding_id = d.binding_id and p.order_id = d.order_id and p.status = 'SUCCESSFUL'
    and p.deduction_id is distinct from d.id) as order_paid
from shouyin.deduction d join shouyin.cycle_payment c on c.id = d.cycle_payment_id
where d.id = $1;

-- name: paid_attempt
-- The payment that took this deduction's money, if one did. With the deduction's lock held none is missed: the next would have
-- to wake the deduction first. $1 id
select id from shouyin.payment where deduction_id = $1 and status = 'SUCCESSFUL' order by id limit 1;

-- name: hold
-- Nothing is deducted for a merchant account until then. Whether it was not held before. $1 account, $2 until, $3 failure, $4 now
insert into shouyin.deduction_hold as h (merchant_account_id, held_until, failure, since)
values ($1, $2, $3, $4)
on conflict (merchant_account_id) do update set held_until = excluded.held_until, failure = excluded.failure
returning since = $4 as began;
