-- name: dispatch
-- Turns events that became no flow runs yet into one run per event and flow, due at once; however often this is asked, and
-- beside itself. Leans on event_undispatched. $1 how many events, $2 kinds of events, $3 the flows that each fires, $4 their
-- triggers, $5 now
with waiting as (
  select id, kind from shouyin.event where dispatched_at is null order by id limit $1 for update skip locked
), added as (
  insert into shouyin.flow_run (event_id, flow, trigger, due_at, created_at)
  select waiting.id, fires.flow, fires.trigger, '-infinity', $5
  from waiting join unnest($2::text[], $3::text[], $4::text[]) with ordinality as fires (kind, flow, trigger, place)
    on fires.kind = waiting.kind
  order by waiting.id, fires.place
  on conflict (event_id, flow) do nothing
)
update shouyin.event set dispatched_at = $5 where id = any(array(select id from waiting)) returning id;

-- name: claim_due
-- Takes due runs until $2 (the lease), at most $3. Leans on flow_run_due.
update shouyin.flow_run
set due_at = $2, attempts = attempts + 1
where id = any (array(
  select id from shouyin.flow_run where due_at <= $1 order by due_at, id limit $3 for no key update skip locked))
returning id, flow, attempts;

-- name: lock
-- The run and what it is about, for the transaction in which it takes effect, and that transaction's number. No row:
-- already done. `order_amount` is one element, the amount of a payment's order as it stands now; null without an order.
select r.id, r.flow, r.trigger, r.attempts, e.id as event_id, e.kind, e.details, e.correlation_id, e.order_id as event_order_id,
  p.id as payment_id, p.binding_id, p.order_id,
  b.order_table::text as order_table, b.status_column, b.paid_status, b.failed_status, b.refunded_status, p.status, p.method, p.amount_fen, p.paid_amount_fen,
  p.refunded_amount_fen, p.out_trade_no, p.transaction_id, p.late, p.paid_at, pg_current_xact_id()::text as transaction,
  e.refund_id, f.status as refund_status, f.amount_fen as refund_amount_fen, f.out_refund_no, f.reason,
  e.cycle_payment_id, c.order_id as cycle_order_id, c.status as cycle_status, c.price_fen as cycle_price_fen, c.subject,
  c.next_deduction_on, e.deduction_id, d.due_on, d.sequence, d.price_fen as deduction_price_fen,
  d.failure as deduction_failure, b.amount_column is not null as priced,
  case r.trigger when 'payment' then (
    select array[o.amount_fen] from shouyin.orders_of(p.binding_id, array[p.order_id]) o) end as order_amount
from shouyin.flow_run r
join shouyin.event e on e.id = r.event_id
left join shouyin.payment p on p.id = e.payment_id
left join shouyin.refund f on f.id = e.refund_id
left join shouyin.cycle_payment c on c.id = e.cycle_payment_id
left join shouyin.binding b on b.binding_id = coalesce(p.binding_id, c.binding_id)
left join shouyin.deduction d on d.id = e.deduction_id
where r.id = $1 and r.status = 'WAITING'
for no key update of r;

-- name: done
-- $1 id, $2 now, $3 the transaction that `lock` began in. No row: this is another one, because the flow ended that.
update shouyin.flow_run set status = 'DONE', due_at = null, error = null, finished_at = $2
where id = $1 and pg_current_xact_id()::text = $3
returning id;

-- name: fail
-- $1 id, $2 error, $3 next try (null: given up, left to an operator), $4 now
update shouyin.flow_run
set error = $2, due_at = $3, status = case when $3::timestamptz is null then 'FAILED' else 'WAITING' end,
  finished_at = case when $3::timestamptz is null then $4::timestamptz end
where id = $1 and status = 'WAITING'
returning id;

-- name: retry
-- $1 id, $2 now. Only what failed or still waits; what is done took effect and stays done.
update shouyin.flow_run set status = 'WAITING', due_at = $2, attempts = 0, finished_at = null
where id = $1 and status in ('WAITING', 'FAILED')
returning id;

-- name: list
-- $1 status or null, $2 payment or null, $3 ids below this or null, $4 how many
select r.id, r.event_id, r.flow, r.trigger, r.status, r.attempts,
  case when r.due_at = '-infinity' then r.created_at else r.due_at end as due_at, r.error, r.created_at, r.finished_at, e.payment_id
from shouyin.flow_run r join shouyin.event e on e.id = r.event_id
where ($1::text is null or r.status = $1) and ($2::bigint is null or e.payment_id = $2) and ($3::bigint is null or r.id < $3)
order by r.id desc limit $4;

-- name: find
select r.id, r.event_id, r.flow, r.trigger, r.status, r.attempts,
  case when r.due_at = '-infinity' then r.created_at else r.due_at end as due_at, r.error, r.created_at, r.finished_at, e.payment_id
from shouyin.flow_run r join shouyin.event e on e.id = r.event_id
where r.id = $1;

-- name: mark_paid
-- The built-in flow: the order's status column, unless it says so already. $1 binding, $2 order, $3 the status
select shouyin.mark_order($1, $2, $3) as marked;

-- name: mark_refunded
-- $1 binding, $2 order, $3 the status. Not while another payment of the order keeps its money: the order is still paid for.
select shouyin.mark_order($1, $2, $3) as marked
where not exists (
  select from shouyin.payment p
  where p.binding_id = $1 and p.order_id = $2 and p.status = 'SUCCESSFUL' and p.refunded_amount_fen < p.paid_amount_fen);

-- name: mark_failed
-- Not when another payment of the order succeeded. $1 binding, $2 order, $3 the status
select shouyin.mark_order($1, $2, $3) as marked
where not exists (
  select from shouyin.payment p where p.binding_id = $1 and p.order_id = $2 and p.status = 'SUCCESSFUL');
