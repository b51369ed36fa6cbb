-- Cycle payments. As with payments every change of state is a guarded update, and one that returns no row changed nothing.

-- name: accounts
-- Merchant accounts that sign agreements of method $1, the one used first before the others; $2 one of them or null.
select id from shouyin.merchant_account
where enabled and offers ? $1 and ($2::bigint is null or id = $2)
order by id limit 50;

-- name: open
-- See shouyin.open_cycle.
select refusal, live_id, order_amount_fen, account_version, replayed, (cycle).*
from shouyin.open_cycle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21);

-- name: by_key
-- $1 caller, $2 idempotency key, $3 input hash
select c.id, c.input_hash = $3 as same
from shouyin.cycle_payment c join shouyin.activation a on a.binding_id = c.binding_id
where c.created_by = $1 and c.idempotency_key = $2;

-- name: find
-- Here and below the version counts the changes of its payments, too: who watches a cycle sees its payments with it.
select id, binding_id, order_id, owner, payer, merchant_account_id, provider, method, scene, subject, price_fen, ceiling_fen, interval_days,
  external_agreement_no, agreement_no, payer_id, status, suspended_for, ending, first_deduction_on, next_deduction_on, plan_on,
  plan_changes, deductions, paid_deductions, failed_dates, open_deduction_id, failure, action, return_url, first_payment_id,
  created_by, correlation_id, expires_at, created_at, updated_at, signed_at, ended_at, valid_until, check_at, check_attempts,
  version + (select coalesce(sum(p.version), 0) from shouyin.payment p where p.cycle_payment_id = c.id)::integer as version
from shouyin.cycle_payment c where id = $1;

-- name: by_ids
select id, binding_id, order_id, owner, payer, merchant_account_id, provider, method, scene, subject, price_fen, ceiling_fen, interval_days,
  external_agreement_no, agreement_no, payer_id, status, suspended_for, ending, first_deduction_on, next_deduction_on, plan_on,
  plan_changes, deductions, paid_deductions, failed_dates, open_deduction_id, failure, action, return_url, first_payment_id,
  created_by, correlation_id, expires_at, created_at, updated_at, signed_at, ended_at, valid_until, check_at, check_attempts,
  version + (select coalesce(sum(p.version), 0) from shouyin.payment p where p.cycle_payment_id = c.id)::integer as version
from shouyin.cycle_payment c where id = any($1::bigint[]);

-- name: of_payer
-- Newest first. Leans on cycle_payment_by_payer. $1 the payer, $2 ids below this or null, $3 how many
select id, binding_id, order_id, owner, payer, merchant_account_id, provider, method, scene, subject, price_fen, ceiling_fen, interval_days,
  external_agreement_no, agreement_no, payer_id, status, suspended_for, ending, first_deduction_on, next_deduction_on, plan_on,
  plan_changes, deductions, paid_deductions, failed_dates, open_deduction_id, failure, action, return_url, first_payment_id,
  created_by, correlation_id, expires_at, created_at, updated_at, signed_at, ended_at, valid_until, check_at, check_attempts,
  version + (select coalesce(sum(p.version), 0) from shouyin.payment p where p.cycle_payment_id = c.id)::integer as version
from shouyin.cycle_payment c where payer = $1 and ($2::bigint is null or id < $2)
order by id desc limit $3;

-- name: lock_by_numbers
-- By our number, or where the provider names only its own by that. $1 external_agreement_no or null, $2 agreement_no or null,
-- $3 provider
select id, binding_id, order_id, owner, payer, merchant_account_id, provider, method, scene, subject, price_fen, ceiling_fen, interval_days,
  external_agreement_no, agreement_no, payer_id, status, suspended_for, ending, first_deduction_on, next_deduction_on, plan_on,
  plan_changes, deductions, paid_deductions, failed_dates, open_deduction_id, failure, action, return_url, first_payment_id,
  created_by, correlation_id, expires_at, created_at, updated_at, signed_at, ended_at, valid_until, check_at, check_attempts,
  version
from shouyin.cycle_payment
where provider = $3 and (external_agreement_no = $1 or $1::text is null and agreement_no = $2)
for no key update;

-- name: account_of_numbers
-- Which merchant account an agreement is under. Arguments as above.
select merchant_account_id from shouyin.cycle_payment
where provider = $3 and (external_agreement_no = $1 or $1::text is null and agreement_no = $2);

-- name: accept
-- The payer can sign now. $1 id, $2 action, $3 now, $4 check_at
update shouyin.cycle_payment
set action = $2, updated_at = $3, check_at = $4, check_attempts = 0, failure = null
where id = $1 and status = 'PENDING'
returning id;

-- name: obstruct
-- What stands in the way of something that goes on. $1 id, $2 failure, $3 now
update shouyin.cycle_payment set failure = $2, updated_at = $3
where id = $1 and failure is distinct from $2::jsonb
returning id;

-- name: has_other_live
-- Whether the payer has another live agreement of this scene. $1 id
select 1 as found from shouyin.cycle_payment c join shouyin.cycle_payment o
  on o.merchant_account_id = c.merchant_account_id and o.payer = c.payer and o.scene = c.scene and o.id <> c.id
where c.id = $1 and o.status in ('PENDING', 'ACTIVE', 'SUSPENDED')
limit 1;

-- name: activate
-- Signed; also when the signing was thought to be over. $1 id, $2 agreement_no, $3 payer_id, $4 signed_at, $5 valid_until,
-- $6 plan_on, $7 days between notice and deduction (0: no notice), $8 now, $9 check_at
with signed as (
  update shouyin.cycle_payment
  set status = 'ACTIVE', agreement_no = coalesce($2, agreement_no), payer_id = coalesce($3, payer_id),
    signed_at = coalesce($4::timestamptz, $8::timestamptz), valid_until = $5, plan_on = coalesce($6, first_deduction_on),
    next_deduction_on = first_deduction_on,
    notice_on = case when $7::integer > 0 then first_deduction_on - $7::integer end,
    ended_at = null, failure = null, updated_at = $8, check_at = $9, check_attempts = 0
  where id = $1 and status in ('PENDING', 'EXPIRED')
  returning id, order_id, correlation_id
)
insert into shouyin.event (kind, cycle_payment_id, order_id, correlation_id, created_at)
select 'cycle.started', id, order_id, correlation_id, $8 from signed
returning cycle_payment_id as id;

-- name: unwanted
-- Signed after it was over here: the provider is to end it, under its number. $1 id, $2 agreement_no, $3 payer_id, $4 now
update shouyin.cycle_payment
set agreement_no = coalesce($2, agreement_no), payer_id = coalesce($3, payer_id), ending = true,
  check_at = case when ending then check_at else $4 end, check_attempts = case when ending then check_attempts else 0 end,
  updated_at = $4
where id = $1 and status in ('CANCELLED', 'EXPIRED')
returning id;

-- name: refresh
-- What the provider says of an agreement that is in force. While it has a deduction in hand its plan may have moved on for that
-- already, which `deduction.paid` does here. $1 id, $2 agreement_no, $3 payer_id, $4 valid_until, $5 plan_on, $6 now, $7 check_at
update shouyin.cycle_payment c
set agreement_no = coalesce($2, agreement_no), payer_id = coalesce($3, payer_id), valid_until = coalesce($4, valid_until),
  plan_on = case when exists (
      select from shouyin.deduction d join shouyin.payment p on p.id = d.payment_id
      where d.id = c.open_deduction_id and p.status in ('PENDING', 'SUCCESSFUL'))
    then plan_on else coalesce($5, plan_on) end,
  updated_at = $6, check_at = $7, check_attempts = 0
where id = $1 and status in ('ACTIVE', 'SUSPENDED')
returning id;

-- name: finish
-- Over. An open deduction is looked at once more, but not while a worker may have it in hand: nothing new is taken, and what is
-- under way is seen to its end. Cancelled before it was signed it is asked about when nobody can sign it any more.
-- $1 id, $2 CANCELLED or EXPIRED, $3 by whom, $4 ended_at, $5 now
with over as (
  update shouyin.cycle_payment
  set status = $2, ending = false, suspended_for = null, ended_at = coalesce($4::timestamptz, $5::timestamptz), next_deduction_on = null,
    notice_on = null, action = null, updated_at = $5,
    check_at = case when $2 = 'CANCELLED' and agreement_no is null and expires_at > $5 then expires_at + interval '10 minutes' end
  where id = $1 and status in ('PENDING', 'ACTIVE', 'SUSPENDED')
  returning id, order_id, correlation_id, open_deduction_id
), woken as (
  update shouyin.deduction d
  set attempt_at = case when d.calls > 0 and d.attempt_at > $5 then least(d.attempt_at, $5 + interval '3 minutes') else '-infinity' end
  from over where d.id = over.open_deduction_id
  returning d.id
)
insert into shouyin.event (kind, cycle_payment_id, order_id, details, correlation_id, created_at)
select case $2 when 'CANCELLED' then 'cycle.cancelled' else 'cycle.expired' end, id, order_id, jsonb_build_object('by', $3::text),
  correlation_id, $5
from over
returning cycle_payment_id as id;

-- name: stop
-- We want it ended: from now on nothing is deducted, and the provider is asked until it has ended it. $1 id, $2 now
with stopped as (
  update shouyin.cycle_payment
  set ending = true, notice_on = null, check_at = $2, check_attempts = 0, updated_at = $2
  where id = $1 and status in ('PENDING', 'ACTIVE', 'SUSPENDED') and not ending
  returning id, open_deduction_id
), woken as (
  update shouyin.deduction d
  set attempt_at = case when d.calls > 0 and d.attempt_at > $2 then least(d.attempt_at, $2 + interval '3 minutes') else '-infinity' end
  from stopped where d.id = stopped.open_deduction_id
  returning d.id
)
select id from stopped;

-- name: stopped
-- Ended at the provider as it was here before. $1 id, $2 now
update shouyin.cycle_payment set ending = false, check_at = null, updated_at = $2
where id = $1 and ending and status in ('CANCELLED', 'EXPIRED')
returning id;

-- name: suspend
-- $1 id, $2 why, $3 failure or null, $4 now
with suspended as (
  update shouyin.cycle_payment
  set status = 'SUSPENDED', suspended_for = $2, failure = coalesce($3, failure), updated_at = $4
  where id = $1 and status = 'ACTIVE' and not ending
  returning id, order_id, correlation_id
)
insert into shouyin.event (kind, cycle_payment_id, order_id, details, correlation_id, created_at)
select 'cycle.suspended', id, order_id, jsonb_build_object('why', $2::text), correlation_id, $4 from suspended
returning cycle_payment_id as id;

-- name: resume
-- $1 id, $2 the next due date, $3 the date it was reckoned from, $4 days between notice and deduction, $5 now
with resumed as (
  update shouyin.cycle_payment
  set status = 'ACTIVE', suspended_for = null, failure = null, failed_dates = 0, next_deduction_on = $2,
    notice_on = case when $4::integer > 0 then $2::date - $4::integer end, updated_at = $5
  where id = $1 and status = 'SUSPENDED' and not ending and next_deduction_on is not distinct from $3
  returning id, order_id, correlation_id
)
insert into shouyin.event (kind, cycle_payment_id, order_id, correlation_id, created_at)
select 'cycle.resumed', id, order_id, correlation_id, $5 from resumed
returning cycle_payment_id as id;

-- name: change_price
-- Of the next deduction and those after it; one that is open keeps its own. $1 id, $2 price_fen, $3 now
update shouyin.cycle_payment set price_fen = $2, updated_at = $3
where id = $1 and status in ('ACTIVE', 'SUSPENDED') and not ending and ceiling_fen >= $2
returning id;

-- name: change_date
-- $1 id, $2 the new next date, $3 the date it replaces, $4 days between notice and deduction, $5 now
update shouyin.cycle_payment
set next_deduction_on = $2, notice_on = case when $4::integer > 0 then $2::date - $4::integer end, updated_at = $5
where id = $1 and status in ('ACTIVE', 'SUSPENDED') and not ending and next_deduction_on = $3
returning id;

-- name: put_off
-- The provider's plan stands at another date now. $1 id, $2 plan_on, $3 now
update shouyin.cycle_payment set plan_on = $2, plan_changes = plan_changes + 1, updated_at = $3
where id = $1 and plan_on is distinct from $2
returning id;

-- name: announce
-- The coming deductions of which payers are told: once per due date. Leans on cycle_payment_to_announce. $1 today, $2 now,
-- $3 how many
with due as (
  select id, announced_on is distinct from next_deduction_on as is_news from shouyin.cycle_payment
  where status = 'ACTIVE' and not ending and notice_on <= $1
  order by notice_on, id limit $3 for no key update skip locked
), coming as (
  update shouyin.cycle_payment c
  set notice_on = null, announced_on = c.next_deduction_on
  where c.id = any (array(select id from due))
  returning c.id, c.order_id, c.correlation_id, c.next_deduction_on, c.price_fen
), told as (
  insert into shouyin.event (kind, cycle_payment_id, order_id, details, correlation_id, created_at)
  select 'cycle.upcoming', id, order_id, jsonb_build_object('due_on', next_deduction_on, 'price_fen', price_fen), correlation_id, $2
  from coming join due using (id) where next_deduction_on > $1 and is_news
)
select id from coming;

-- name: claim_due
-- Takes cycles whose agreement is to be asked about, for $2 (the lease) at most $3. Leans on cycle_payment_to_check.
update shouyin.cycle_payment set check_at = $2, check_attempts = check_attempts + 1
where id = any (array(
  select id from shouyin.cycle_payment where check_at <= $1 order by check_at limit $3 for no key update skip locked))
returning id, binding_id, order_id, owner, payer, merchant_account_id, provider, method, scene, subject, price_fen, ceiling_fen,
  interval_days, external_agreement_no, agreement_no, payer_id, status, suspended_for, ending, first_deduction_on,
  next_deduction_on, plan_on, plan_changes, deductions, paid_deductions, failed_dates, open_deduction_id, failure, action,
  return_url, first_payment_id, created_by, correlation_id, expires_at, created_at, updated_at, signed_at, ended_at,
  valid_until, check_at, check_attempts, version;

-- name: check_later
-- $1 id, $2 check_at, $3 the lease that the claim set, $4 check_attempts
update shouyin.cycle_payment set check_at = $2, check_attempts = $4 where id = $1 and check_at = $3 returning id;

-- name: ask_now
-- $1 id, $2 now
update shouyin.cycle_payment set check_at = $2, check_attempts = 0
where id = $1 and (check_at is null or check_at > $2) and status in ('PENDING', 'ACTIVE', 'SUSPENDED')
returning id;

-- name: append_event
-- $1 kind, $2 cycle, $3 order, $4 details, $5 correlation id, $6 now
insert into shouyin.event (kind, cycle_payment_id, order_id, details, correlation_id, created_at)
values ($1, $2, $3, $4, $5, $6)
returning id;

-- name: payments
-- The payments of cycles, oldest first. Leans on payment_by_cycle. $1 cycles
select id, binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
  refunded_amount_fen, reserved_refund_fen, subject, out_trade_no, transaction_id, status, failure, action, openid,
  app_id, client_address, return_url, created_by, correlation_id, expires_at, created_at, updated_at, paid_at, late,
  check_at, check_attempts, cycle_payment_id, deduction_id, version
from shouyin.payment where cycle_payment_id = any($1::bigint[]) order by cycle_payment_id, id;
