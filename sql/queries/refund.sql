-- Refunds. As with payments every change of state is a guarded update; whoever changes a refund holds its payment's lock, so
-- that the reserve moves with it.

-- name: open
-- See shouyin.open_refund.
select refusal, refundable_fen, bound_fen, replayed, (refund).*
from shouyin.open_refund($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- name: find
select id, payment_id, order_id, owner, merchant_account_id, amount_fen, out_refund_no, provider_refund_id, status, reason,
  failure, created_by, correlation_id, created_at, updated_at, refunded_at, check_at, check_attempts, version
from shouyin.refund where id = $1;

-- name: by_ids
select id, payment_id, order_id, owner, merchant_account_id, amount_fen, out_refund_no, provider_refund_id, status, reason,
  failure, created_by, correlation_id, created_at, updated_at, refunded_at, check_at, check_attempts, version
from shouyin.refund where id = any($1::bigint[]);

-- name: by_payments
-- Leans on refund_by_payment.
select id, payment_id, order_id, owner, merchant_account_id, amount_fen, out_refund_no, provider_refund_id, status, reason,
  failure, created_by, correlation_id, created_at, updated_at, refunded_at, check_at, check_attempts, version
from shouyin.refund where payment_id = any($1::bigint[]) order by payment_id, id;

-- name: lock_payment
-- Before the refund itself, as everywhere. $1 out_refund_no
select p.id, p.out_trade_no, p.app_id from shouyin.payment p
where p.id = (select r.payment_id from shouyin.refund r where r.out_refund_no = $1)
for no key update;

-- name: lock
select id, payment_id, order_id, owner, merchant_account_id, amount_fen, out_refund_no, provider_refund_id, status, reason,
  failure, created_by, correlation_id, created_at, updated_at, refunded_at, check_at, check_attempts, version
from shouyin.refund where out_refund_no = $1 for no key update;

-- name: request
-- What the provider needs to know of the payment.
select r.id, p.out_trade_no, p.transaction_id, p.amount_fen as total_fen, p.provider
from shouyin.refund r join shouyin.payment p on p.id = r.payment_id where r.id = $1;

-- name: accept
-- The provider took it and works on it. $1 id, $2 provider_refund_id, $3 now, $4 check_at, $5 what stands in its way or null
update shouyin.refund
set status = 'PENDING', provider_refund_id = coalesce($2, provider_refund_id), updated_at = $3, check_at = $4,
  check_attempts = 0, failure = $5
where id = $1 and status in ('CREATED', 'PENDING')
returning id, payment_id, order_id, owner, merchant_account_id, amount_fen, out_refund_no, provider_refund_id, status, reason,
  failure, created_by, correlation_id, created_at, updated_at, refunded_at, check_at, check_attempts, version;

-- name: doubt
-- What the provider said while it is not known what it did. $1 id, $2 failure, $3 now
update shouyin.refund set failure = $2, updated_at = $3
where id = $1 and status = 'CREATED' and failure is distinct from $2::jsonb
returning id;

-- name: succeed
-- The money went back: the reserve becomes what was refunded. $1 id, $2 provider_refund_id, $3 refunded_at, $4 now
with done as (
  update shouyin.refund
  set status = 'REFUNDED', provider_refund_id = coalesce($2, provider_refund_id),
    refunded_at = coalesce($3::timestamptz, $4::timestamptz), updated_at = $4, check_at = null, failure = null
  where id = $1 and status in ('CREATED', 'PENDING')
  returning id, payment_id, order_id, owner, merchant_account_id, amount_fen, out_refund_no, provider_refund_id, status, reason,
    failure, created_by, correlation_id, created_at, updated_at, refunded_at, check_at, check_attempts, version
), moved as (
  update shouyin.payment p
  set reserved_refund_fen = p.reserved_refund_fen - done.amount_fen,
    refunded_amount_fen = p.refunded_amount_fen + done.amount_fen, updated_at = $4
  from done where p.id = done.payment_id
  returning p.id
), happened as (
  insert into shouyin.event (kind, payment_id, refund_id, order_id, correlation_id, created_at)
  select 'refund.refunded', payment_id, id, order_id, correlation_id, $4 from done
)
select * from done;

-- name: succeed_late
-- It was called failed, and the money went back all the same. The provider's sum may have told of it already, as of money
-- given back elsewhere; then it is not added again. No row: the payment has not that much left, which cannot be.
-- $1 id, $2 provider_refund_id, $3 refunded_at, $4 now
with late as (
  select r.id, r.payment_id, r.amount_fen + coalesce((
    select sum(o.amount_fen) from shouyin.refund o where o.payment_id = r.payment_id and o.status = 'REFUNDED'
  ), 0)::bigint as ours_fen
  from shouyin.refund r where r.id = $1 and r.status = 'FAILED'
), moved as (
  update shouyin.payment p
  set refunded_amount_fen = greatest(p.refunded_amount_fen, late.ours_fen), updated_at = $4
  from late
  where p.id = late.payment_id and p.paid_amount_fen - p.reserved_refund_fen >= late.ours_fen
  returning late.id
), done as (
  update shouyin.refund
  set status = 'REFUNDED', provider_refund_id = coalesce($2, provider_refund_id),
    refunded_at = coalesce($3::timestamptz, $4::timestamptz), updated_at = $4, check_at = null, failure = null
  where id = (select id from moved)
  returning id, payment_id, order_id, owner, merchant_account_id, amount_fen, out_refund_no, provider_refund_id, status, reason,
    failure, created_by, correlation_id, created_at, updated_at, refunded_at, check_at, check_attempts, version
), happened as (
  insert into shouyin.event (kind, payment_id, refund_id, order_id, details, correlation_id, created_at)
  select 'refund.refunded', payment_id, id, order_id, '{"late": true}', correlation_id, $4 from done
)
select * from done;

-- name: fail
-- Nothing goes back under this number; the reserve is free again. $1 id, $2 failure, $3 now, $4 statuses it may leave
with failed as (
  update shouyin.refund set status = 'FAILED', failure = $2, updated_at = $3, check_at = null
  where id = $1 and status = any($4::text[])
  returning id, payment_id, order_id, owner, merchant_account_id, amount_fen, out_refund_no, provider_refund_id, status, reason,
    failure, created_by, correlation_id, created_at, updated_at, refunded_at, check_at, check_attempts, version
), moved as (
  update shouyin.payment p set reserved_refund_fen = p.reserved_refund_fen - failed.amount_fen, updated_at = $3
  from failed where p.id = failed.payment_id
  returning p.id
), happened as (
  insert into shouyin.event (kind, payment_id, refund_id, order_id, correlation_id, created_at)
  select 'refund.failed', payment_id, id, order_id, correlation_id, $3 from failed
)
select * from failed;

-- name: claim_due
-- Takes refunds whose question is due, for $2 (the lease) at most $3 of them. Leans on refund_to_check.
update shouyin.refund set check_at = $2, check_attempts = check_attempts + 1
where id = any (array(
  select id from shouyin.refund where check_at <= $1 order by check_at limit $3 for no key update skip locked))
returning id, payment_id, order_id, owner, merchant_account_id, amount_fen, out_refund_no, provider_refund_id, status, reason,
  failure, created_by, correlation_id, created_at, updated_at, refunded_at, check_at, check_attempts, version;

-- name: check_later
-- $1 id, $2 check_at, $3 the lease that the claim set, $4 check_attempts
update shouyin.refund set check_at = $2, check_attempts = $4 where id = $1 and check_at = $3 returning id;

-- name: ask_now
-- A notice mentioned it; one that was called failed may have gone through after all. $1 out_refund_no, $2 now
update shouyin.refund set check_at = $2
where out_refund_no = $1 and (check_at > $2 or check_at is null and status = 'FAILED')
returning id;

-- name: append_event
-- $1 kind, $2 payment id, $3 refund id, $4 order id, $5 details, $6 correlation id, $7 now
insert into shouyin.event (kind, payment_id, refund_id, order_id, details, correlation_id, created_at)
values ($1, $2, $3, $4, $5, $6, $7)
returning id;
