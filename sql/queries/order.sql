-- Rows of the bound order table, through the view that binding defines; and of those that were bound before. The
-- activation is named first and so locked first, as by whoever binds another table.

-- name: take_turns
-- Two payments of one order that succeed at once take turns, so that the second is seen to be surplus. Not by the order's
-- own row lock: a merchant's transaction may hold that for minutes, and money must not wait for it.
-- $1 binding, $2 order
select pg_advisory_xact_lock(hashtextextended('shouyin.order:' || $1::smallint || ':' || $2::bigint, 0));

-- name: by_ids
-- Of the table that is bound now.
select a.binding_id, o.id::bigint as id, o.owner, o.amount_fen, o.status::text as status, o.data
from shouyin.activation a, shouyin.bound_order o
where o.id = any($1::bigint[]);

-- name: of_payments
-- Of whichever table each payment is. $1 bindings, $2 order ids, as pairs
select a.binding_id, o.id::bigint as id, o.owner, o.amount_fen, o.status::text as status, o.data
from shouyin.activation a, shouyin.bound_order o
where o.id = any(array(
  select k.order_id from unnest($1::smallint[], $2::bigint[]) as k (binding_id, order_id)
  where k.binding_id = (select b.binding_id from shouyin.activation b)))
union all
select f.binding_id, o.id, o.owner, o.amount_fen, o.status, o.data
from shouyin.former_binding f
cross join lateral (
  select array_agg(k.order_id) as ids from unnest($1::smallint[], $2::bigint[]) as k (binding_id, order_id)
  where k.binding_id = f.binding_id) asked
cross join lateral shouyin.orders_of(f.binding_id, asked.ids) o
where asked.ids is not null;
