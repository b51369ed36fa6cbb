-- name: find
select binding_id, order_table::oid::bigint as oid, order_table_name, plan, plan_expires_at
from shouyin.activation;

-- name: methods
-- Ways to pay that an enabled merchant account can be used for.
select distinct a.provider, o.method from shouyin.merchant_account a, jsonb_object_keys(a.offers) as o (method)
where a.enabled;

-- name: relation
-- What the catalogue knows of a table by the name a person wrote; no row for what is no name at all.
select c.oid::bigint as oid, c.relkind::text as kind, c.relpersistence::text as persistence, n.nspname as schema,
  format('%I.%I', n.nspname, c.relname) as name
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.oid = to_regclass($1);

-- name: primary_key
select a.attname as name, t.typname as type
from pg_index i
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
join pg_type t on t.oid = a.atttypid
where i.indrelid = $1::bigint::oid and i.indisprimary;

-- name: columns
select a.attname as name, t.typname as type, t.typtype::text as kind, a.atttypmod as modifier,
  a.attgenerated <> '' as generated, a.attidentity <> '' as identity,
  exists (select from pg_index i where i.indrelid = a.attrelid and i.indisprimary and a.attnum = any(i.indkey)) as key,
  (select array_agg(e.enumlabel order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid)::text[] as labels
from pg_attribute a join pg_type t on t.oid = a.atttypid
where a.attrelid = $1::bigint::oid and a.attnum > 0 and not a.attisdropped
order by a.attnum;

-- name: lock
-- One activation at a time.
select pg_advisory_xact_lock(5346700003);

-- name: bind
-- See shouyin.bind_order_table.
select drop_guarded, binding_id from shouyin.bind_order_table($1::bigint::oid::regclass, $2, $3, $4, $5, $6);

-- name: hold_bindings
-- See shouyin.hold_bindings. $1 the table that will be bound
select shouyin.hold_bindings($1::bigint::oid::regclass);

-- name: set_aside
-- See shouyin.set_binding_aside. $1 now
select plan, plan_expires_at, plan_warned_days from shouyin.set_binding_aside($1);

-- name: insert
insert into shouyin.activation (order_table, order_table_name, key_column, owner_column, amount_column, amount_in_fen,
  status_column, paid_status, failed_status, refunded_status, drop_guarded, binding_id, activated_at, plan, plan_expires_at,
  plan_warned_days, cycle_order_columns)
values ($1::bigint::oid::regclass, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
returning id;

-- name: plan
-- Whether payments are on, and until when; no row while they are off.
select plan_expires_at from shouyin.activation;

-- name: set_plan
-- A new end is announced anew. $1 plan, $2 expires_at
update shouyin.activation set plan = $1, plan_expires_at = $2, plan_warned_days = null returning id;

-- name: warn_of_plan
-- Announces the plan's end once for each of some numbers of days before it: the smallest that has been reached. $1 now,
-- $2 days
with reached as (
  select min(d) as days from shouyin.activation a, unnest($2::smallint[]) as d
  where a.plan_expires_at > $1::timestamptz and a.plan_expires_at <= $1::timestamptz + d * interval '24 hours'
), warned as (
  update shouyin.activation a set plan_warned_days = reached.days
  from reached
  where reached.days is not null and (a.plan_warned_days is null or a.plan_warned_days > reached.days)
  returning a.plan, a.plan_expires_at, a.plan_warned_days
)
insert into shouyin.event (kind, details, created_at)
select 'plan.expiring', jsonb_build_object('plan', plan, 'expires_at', plan_expires_at, 'days', plan_warned_days), $1
from warned
returning id;

-- name: bound
-- Which table is bound, by all the names a person may call it: as it was bound, as it is called now, and without its schema
-- where no other table is called so.
select a.order_table_name as name, a.activated_at,
  array[a.order_table_name, format('%I.%I', n.nspname, c.relname), format('%s.%s', n.nspname, c.relname)]
    || case when (
      select count(*) from pg_class o join pg_namespace s on s.oid = o.relnamespace
      where o.relname = c.relname and o.relkind in ('r', 'p') and s.nspname !~ '^pg_|^information_schema$|^shouyin$') = 1
    then array[c.relname::text, format('%I', c.relname)] else '{}' end as names
from shouyin.activation a
join pg_class c on c.oid = a.order_table
join pg_namespace n on n.oid = c.relnamespace;

-- name: wait_briefly
-- Until the transaction ends no statement takes longer than half of the time after which the server looks for deadlocks.
select set_config('statement_timeout',
  (extract(epoch from current_setting('deadlock_timeout')::interval) * 500)::integer::text, true);

-- name: hold
-- See shouyin.hold_payments.
select shouyin.hold_payments();

-- name: clear
-- See shouyin.clear_payments. $1 now
select shouyin.clear_payments($1);

-- name: unresolved
-- What has no end yet, by kind: how many, and the oldest $1 of them by id, each with what a person looks for.
select 'payments' as kind, count(*) as total,
  (array_agg(jsonb_build_object('id', id::text, 'outTradeNo', out_trade_no, 'status', status) order by id))[1:$1] as oldest
from shouyin.payment where status in ('CREATED', 'PENDING') or check_at is not null
having count(*) > 0
union all
select 'refunds', count(*),
  (array_agg(jsonb_build_object('id', id::text, 'outRefundNo', out_refund_no, 'status', status) order by id))[1:$1]
from shouyin.refund where status in ('CREATED', 'PENDING') or check_at is not null
having count(*) > 0
union all
select 'cyclePayments', count(*),
  (array_agg(jsonb_build_object('id', id::text, 'externalAgreementNo', external_agreement_no, 'status', status) order by id))[1:$1]
from shouyin.cycle_payment where status in ('PENDING', 'ACTIVE', 'SUSPENDED') or ending
having count(*) > 0
union all
select 'deductions', count(*),
  (array_agg(jsonb_build_object('id', id::text, 'cyclePaymentId', cycle_payment_id::text, 'status', status) order by id))[1:$1]
from shouyin.deduction where status in ('WAITING', 'CHARGING') or attempt_at is not null
having count(*) > 0
union all
select 'notifications', count(*), (array_agg(jsonb_build_object('id', id::text, 'provider', provider) order by id))[1:$1]
from shouyin.notification where due_at is not null or handled_count < received_count
having count(*) > 0
union all
select 'events', count(*), (array_agg(jsonb_build_object('id', id::text, 'kind', kind) order by id))[1:$1]
from shouyin.event where dispatched_at is null
having count(*) > 0
union all
select 'flowRuns', count(*), (array_agg(jsonb_build_object('id', id::text, 'flow', flow) order by id))[1:$1]
from shouyin.flow_run where status = 'WAITING'
having count(*) > 0;
