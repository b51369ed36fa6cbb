-- Rows of the bound order table, through the view that binding defines.

-- name: take_turns
-- Two payments of one order that succeed at once take turns, so that the second is seen to be surplus. Not by the order's
-- own row lock: a merchant's transaction may hold that for minutes, and money must not wait for it.
select pg_advisory_xact_lock(hashtextextended('shouyin.order:' || $1::bigint, 0));

-- name: by_ids
select id::bigint as id, owner, amount_fen, status::text as status, data from shouyin.bound_order where id = any($1::bigint[]);
