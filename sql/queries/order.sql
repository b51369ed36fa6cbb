-- Rows of the bound order table, through the view that binding defines.

-- name: lock
-- Two payments of one order that succeed at once take turns, so that the second is seen to be surplus.
select id::bigint as id from shouyin.bound_order where id = $1::bigint for no key update;

-- name: by_ids
select id::bigint as id, owner, amount_fen, status::text as status, data from shouyin.bound_order where id = any($1::bigint[]);
