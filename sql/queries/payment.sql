-- Payments. Every change of state is a guarded update: what it requires of the old state stands in its where clause, and
-- a statement that returns no row changed nothing.

-- name: open
-- The checks, the row and its event in one round trip; see shouyin.open_payment.
select refusal, order_amount_fen, account_version, replayed, (payment).*
from shouyin.open_payment($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
  $22);

-- name: find
select id, binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
  refunded_amount_fen, reserved_refund_fen, subject, out_trade_no, transaction_id, status, failure, action, openid,
  app_id, client_address, return_url, created_by, correlation_id, expires_at, created_at, updated_at, paid_at, late,
  check_at, check_attempts, cycle_payment_id, deduction_id, version
from shouyin.payment where id = $1;

-- name: by_ids
select id, binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
  refunded_amount_fen, reserved_refund_fen, subject, out_trade_no, transaction_id, status, failure, action, openid,
  app_id, client_address, return_url, created_by, correlation_id, expires_at, created_at, updated_at, paid_at, late,
  check_at, check_attempts, cycle_payment_id, deduction_id, version
from shouyin.payment where id = any($1::bigint[]);

-- name: by_orders
-- Payments of one binding's orders. Leans on payment_by_order. $1 binding, $2 order ids
select id, binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
  refunded_amount_fen, reserved_refund_fen, subject, out_trade_no, transaction_id, status, failure, action, openid,
  app_id, client_address, return_url, created_by, correlation_id, expires_at, created_at, updated_at, paid_at, late,
  check_at, check_attempts, cycle_payment_id, deduction_id, version
from shouyin.payment where binding_id = $1 and order_id = any($2::bigint[]) order by order_id, id;

-- name: by_orders_of_any_table
-- For watchers, who take from these what is of their own order: the same id may be an order of several tables. Leans on
-- payment_by_order. $1 order ids
select id, binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
  refunded_amount_fen, reserved_refund_fen, subject, out_trade_no, transaction_id, status, failure, action, openid,
  app_id, client_address, return_url, created_by, correlation_id, expires_at, created_at, updated_at, paid_at, late,
  check_at, check_attempts, cycle_payment_id, deduction_id, version
from shouyin.payment
where binding_id = any(array(select b.binding_id from shouyin.binding b)) and order_id = any($1::bigint[])
order by binding_id, order_id, id;

-- name: lock_by_number
select id, binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
  refunded_amount_fen, reserved_refund_fen, subject, out_trade_no, transaction_id, status, failure, action, openid,
  app_id, client_address, return_url, created_by, correlation_id, expires_at, created_at, updated_at, paid_at, late,
  check_at, check_attempts, cycle_payment_id, deduction_id, version
from shouyin.payment where out_trade_no = $1 for no key update;

-- name: lock
-- $1 id
select id, binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
  refunded_amount_fen, reserved_refund_fen, subject, out_trade_no, transaction_id, status, failure, action, openid,
  app_id, client_address, return_url, created_by, correlation_id, expires_at, created_at, updated_at, paid_at, late,
  check_at, check_attempts, cycle_payment_id, deduction_id, version
from shouyin.payment where id = $1 for no key update;

-- name: accept
-- The provider took the order. No row: something else was faster (a notification), and its word stands.
-- $1 id, $2 action, $3 transaction_id, $4 now, $5 check_at
with accepted as (
  update shouyin.payment
  set status = 'PENDING', action = $2, transaction_id = coalesce($3, transaction_id), updated_at = $4, check_at = $5,
    check_attempts = 0, failure = null
  where id = $1 and status = 'CREATED'
  returning id, binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
    refunded_amount_fen, reserved_refund_fen, subject, out_trade_no, transaction_id, status, failure, action, openid,
    app_id, client_address, return_url, created_by, correlation_id, expires_at, created_at, updated_at, paid_at, late,
    check_at, check_attempts, cycle_payment_id, deduction_id, version
), happened as (
  insert into shouyin.event (kind, payment_id, order_id, correlation_id, created_at)
  select 'payment.pending', id, order_id, correlation_id, $4 from accepted
)
select * from accepted;

-- name: doubt
-- What the provider said while it is not known what it did. $1 id, $2 failure, $3 now
update shouyin.payment set failure = $2, updated_at = $3
where id = $1 and status = 'CREATED' and failure is distinct from $2::jsonb
returning id;

-- name: fail
-- Nothing was charged: the provider said no, or was never reached. $1 id, $2 failure, $3 now, $4 statuses it may leave
with failed as (
  update shouyin.payment
  set status = 'FAILED', failure = $2, updated_at = $3, check_at = null
  where id = $1 and status = any($4::text[])
  returning id, binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
    refunded_amount_fen, reserved_refund_fen, subject, out_trade_no, transaction_id, status, failure, action, openid,
    app_id, client_address, return_url, created_by, correlation_id, expires_at, created_at, updated_at, paid_at, late,
    check_at, check_attempts, cycle_payment_id, deduction_id, version
), happened as (
  insert into shouyin.event (kind, payment_id, order_id, correlation_id, created_at)
  select 'payment.failed', id, order_id, correlation_id, $3 from failed
)
select * from failed;

-- name: close
-- No money will be taken for this number any more. $1 id, $2 now, $3 check_at (one last look where a page may be open)
with closed as (
  update shouyin.payment
  set status = 'CLOSED', updated_at = $2, check_at = $3
  where id = $1 and status in ('CREATED', 'PENDING')
  returning id, binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
    refunded_amount_fen, reserved_refund_fen, subject, out_trade_no, transaction_id, status, failure, action, openid,
    app_id, client_address, return_url, created_by, correlation_id, expires_at, created_at, updated_at, paid_at, late,
    check_at, check_attempts, cycle_payment_id, deduction_id, version
), happened as (
  insert into shouyin.event (kind, payment_id, order_id, correlation_id, created_at)
  select 'payment.closed', id, order_id, correlation_id, $2 from closed
)
select * from closed;

-- name: succeed
-- Paid, from whatever state. A success after CLOSED or FAILED wins and is flagged late. What the provider has given back
-- already is kept with it. $1 id, $2 paid_amount_fen, $3 transaction_id, $4 payer_id, $5 paid_at, $6 now, $7 refunded fen
with before as (
  select id, status in ('CLOSED', 'FAILED') as late from shouyin.payment where id = $1
), paid as (
  update shouyin.payment p
  set status = 'SUCCESSFUL', paid_amount_fen = $2, refunded_amount_fen = least(coalesce($7::bigint, 0), $2),
    transaction_id = coalesce($3, p.transaction_id), payer_id = $4,
    paid_at = coalesce($5::timestamptz, $6::timestamptz), updated_at = $6, failure = null, late = before.late, check_at = null
  from before
  where p.id = before.id and p.status in ('CREATED', 'PENDING', 'CLOSED', 'FAILED')
  returning p.id, p.binding_id, p.order_id, p.owner, p.merchant_account_id, p.provider, p.method, p.amount_fen,
    p.paid_amount_fen, p.refunded_amount_fen, p.reserved_refund_fen, p.subject, p.out_trade_no, p.transaction_id,
    p.status, p.failure, p.action, p.openid, p.app_id, p.client_address, p.return_url, p.created_by, p.correlation_id,
    p.expires_at, p.created_at, p.updated_at, p.paid_at, p.late, p.check_at, p.check_attempts, p.cycle_payment_id, p.deduction_id, p.version
), happened as (
  insert into shouyin.event (kind, payment_id, order_id, details, correlation_id, created_at)
  select 'payment.successful', id, order_id,
    jsonb_build_object('late', late, 'surplus', exists (
      select from shouyin.payment o
      where o.binding_id = paid.binding_id and o.order_id = paid.order_id and o.status = 'SUCCESSFUL' and o.id <> paid.id)),
    correlation_id, $6
  from paid
)
select * from paid;

-- name: claim_due
-- Takes payments whose question is due, for $2 (the lease) at most $3 of them. Leans on payment_to_check.
update shouyin.payment
set check_at = $2, check_attempts = check_attempts + 1
where id = any (array(
  select id from shouyin.payment where check_at <= $1 order by check_at limit $3 for no key update skip locked))
returning id, binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
  refunded_amount_fen, reserved_refund_fen, subject, out_trade_no, transaction_id, status, failure, action, openid,
  app_id, client_address, return_url, created_by, correlation_id, expires_at, created_at, updated_at, paid_at, late,
  check_at, check_attempts, cycle_payment_id, deduction_id, version;

-- name: check_later
-- Sets the next question, unless something set another one since the claim. $1 id, $2 check_at (null: nothing left to
-- ask), $3 the lease that the claim set, $4 check_attempts
update shouyin.payment set check_at = $2, check_attempts = $4
where id = $1 and check_at = $3
returning id;

-- name: append_event
-- $1 kind, $2 payment id, $3 order id, $4 details, $5 correlation id, $6 now
insert into shouyin.event (kind, payment_id, order_id, details, correlation_id, created_at)
values ($1, $2, $3, $4, $5, $6)
returning id;

-- name: record_difference
-- $1 merchant account, $2 payment, $3 out_trade_no, $4 field, $5 expected, $6 reported, $7 source, $8 now
insert into shouyin.difference (merchant_account_id, payment_id, out_trade_no, field, expected, reported, source,
  first_seen_at, last_seen_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $8)
on conflict (merchant_account_id, out_trade_no, field, reported) do update
set seen = shouyin.difference.seen + 1, last_seen_at = excluded.last_seen_at
returning seen;

-- name: refunded_elsewhere
-- The provider gave back more than we know of: somebody used its own console. What it gave back in all may hold our own
-- refunds that are under way, which are counted when they are known: only the rest is added now.
-- $1 id, $2 what it gave back in all, $3 now
with known as (
  update shouyin.payment
  set refunded_amount_fen = least($2, paid_amount_fen) - reserved_refund_fen, updated_at = $3
  where id = $1 and status = 'SUCCESSFUL' and refunded_amount_fen + reserved_refund_fen < least($2, paid_amount_fen)
  returning id, order_id, correlation_id, refunded_amount_fen
)
insert into shouyin.event (kind, payment_id, order_id, details, correlation_id, created_at)
select 'payment.refunded_elsewhere', id, order_id, jsonb_build_object('refunded_fen', refunded_amount_fen), correlation_id, $3
from known
returning id;
