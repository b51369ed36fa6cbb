-- What leaves as CSV, in pages: each begins after the last row of the page before it, so that nothing is held open while
-- somebody slowly reads. A payment's status is the one clients see; refunds count where they went through. `order_table` tells
-- orders apart that have the same id;
-- looked up for each row, so that it can leave none out.

-- name: paid_payments
-- Leans on payment_by_paid_at. $1 from, $2 until (exclusive), $3 after this instant and $4 this id, $5 statuses or null, $6 how
-- many
select p.id, p.order_id, p.owner, p.provider, p.method, p.merchant_account_id, p.subject, p.out_trade_no, p.transaction_id,
  s.status, p.amount_fen, p.paid_amount_fen, p.refunded_amount_fen, p.created_by, p.created_at, p.paid_at,
  (select b.order_table_name from shouyin.binding b where b.binding_id = p.binding_id) as order_table, p.version
from shouyin.payment p
cross join lateral (select case when p.refunded_amount_fen = 0 then 'SUCCESSFUL'
  when p.refunded_amount_fen = p.paid_amount_fen then 'REFUNDED' else 'PARTIALLY_REFUNDED' end as status) s
where p.paid_at >= $1 and p.paid_at < $2 and (p.paid_at, p.id) > ($3::timestamptz, $4::bigint)
  and p.status = 'SUCCESSFUL' and ($5::text[] is null or s.status = any($5))
order by p.paid_at, p.id limit $6;

-- name: made_refunds
-- Leans on refund_by_refunded_at. Arguments as above.
select r.id, r.payment_id, r.order_id, r.owner, r.merchant_account_id, p.out_trade_no, r.out_refund_no, r.provider_refund_id,
  r.status, r.reason, r.amount_fen, r.amount_fen as refunded_amount_fen, r.created_by, r.created_at, r.refunded_at,
  (select b.order_table_name from shouyin.binding b where b.binding_id = p.binding_id) as order_table, r.version
from shouyin.refund r
join shouyin.payment p on p.id = r.payment_id
where r.refunded_at >= $1 and r.refunded_at < $2 and (r.refunded_at, r.id) > ($3::timestamptz, $4::bigint)
  and r.status = 'REFUNDED' and ($5::text[] is null or r.status = any($5))
order by r.refunded_at, r.id limit $6;

-- name: count_paid_payments
-- About how many rows a page-by-page reading will meet, whatever their status. $1 from, $2 until
select count(*) as rows from shouyin.payment where paid_at >= $1 and paid_at < $2;

-- name: count_made_refunds
select count(*) as rows from shouyin.refund where refunded_at >= $1 and refunded_at < $2;

-- name: all_payments
-- $1 after this id, $2 how many
select p.id, p.order_id, p.owner, p.provider, p.method, p.merchant_account_id, p.subject, p.out_trade_no, p.transaction_id,
  case when p.status = 'CREATED' then 'PENDING' when p.status <> 'SUCCESSFUL' or p.refunded_amount_fen = 0 then p.status
    when p.refunded_amount_fen = p.paid_amount_fen then 'REFUNDED' else 'PARTIALLY_REFUNDED' end as status,
  p.amount_fen, p.paid_amount_fen, p.refunded_amount_fen, p.created_by, p.created_at, p.paid_at,
  (select b.order_table_name from shouyin.binding b where b.binding_id = p.binding_id) as order_table, p.version
from shouyin.payment p
where p.id > $1 order by p.id limit $2;

-- name: all_refunds
-- $1 after this id, $2 how many
select r.id, r.payment_id, r.order_id, r.owner, r.merchant_account_id, p.out_trade_no, r.out_refund_no, r.provider_refund_id,
  case r.status when 'CREATED' then 'PENDING' else r.status end as status, r.reason, r.amount_fen,
  case r.status when 'REFUNDED' then r.amount_fen end as refunded_amount_fen, r.created_by, r.created_at, r.refunded_at,
  (select b.order_table_name from shouyin.binding b where b.binding_id = p.binding_id) as order_table, r.version
from shouyin.refund r
join shouyin.payment p on p.id = r.payment_id
where r.id > $1 order by r.id limit $2;

-- name: all_cycle_payments
-- $1 after this id, $2 how many
select c.id, c.order_id, c.owner, c.payer, c.provider, c.merchant_account_id, c.scene, c.subject, c.external_agreement_no,
  c.agreement_no, c.status, c.price_fen, c.interval_days, c.deductions, c.paid_deductions,
  (select sum(d.price_fen) from shouyin.deduction d where d.cycle_payment_id = c.id and d.status = 'PAID')::bigint as paid_fen,
  c.created_by, c.created_at, c.signed_at, c.ended_at,
  (select b.order_table_name from shouyin.binding b where b.binding_id = c.binding_id) as order_table, c.version
from shouyin.cycle_payment c
where c.id > $1 order by c.id limit $2;

-- name: all_deductions
-- A deduction has no version of its own: whatever ends one changes its cycle. $1 after this id, $2 how many
select d.id, d.cycle_payment_id, d.due_on, d.sequence, d.status, d.order_id, d.payment_id, d.attempts, d.price_fen,
  case d.status when 'PAID' then d.price_fen end as paid_fen, d.failure ->> 'provider_code' as failure, d.created_at,
  d.finished_at, (select b.order_table_name from shouyin.binding b where b.binding_id = d.binding_id) as order_table,
  0 as version
from shouyin.deduction d
where d.id > $1 order by d.id limit $2;

-- name: stand
-- How many rows there are, and their versions together: any row that came or changed since makes it another pair.
select (select count(*) from shouyin.payment) as payments,
  (select coalesce(sum(version), 0)::bigint from shouyin.payment) as payment_versions,
  (select count(*) from shouyin.refund) as refunds,
  (select coalesce(sum(version), 0)::bigint from shouyin.refund) as refund_versions,
  (select count(*) from shouyin.cycle_payment) as cycle_payments,
  (select coalesce(sum(version), 0)::bigint from shouyin.cycle_payment) as cycle_payment_versions,
  (select count(*) from shouyin.deduction) as deductions, 0::bigint as deduction_versions;
