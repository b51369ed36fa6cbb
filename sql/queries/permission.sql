-- Who may do what.

-- name: held
-- $1 roles, $2 action
select 1 as held from shouyin.permission where role = any($1::text[]) and action = $2 limit 1;

-- name: list
select role, action, scope, largest_refund_fen, largest_refund_per_day_fen, granted_by, granted_at
from shouyin.permission order by role, action;

-- name: grant
-- No row: it is granted so already. $1 role, $2 action, $3 scope, $4 largest refund, $5 largest sum a day, $6 who, $7 now
insert into shouyin.permission as p
  (role, action, scope, largest_refund_fen, largest_refund_per_day_fen, granted_by, granted_at)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (role, action) do update
set scope = excluded.scope, largest_refund_fen = excluded.largest_refund_fen,
  largest_refund_per_day_fen = excluded.largest_refund_per_day_fen, granted_by = excluded.granted_by,
  granted_at = excluded.granted_at
where (p.scope, p.largest_refund_fen, p.largest_refund_per_day_fen)
  is distinct from (excluded.scope, excluded.largest_refund_fen, excluded.largest_refund_per_day_fen)
returning role;

-- name: revoke
-- No row: it was not granted. $1 role, $2 action
delete from shouyin.permission where role = $1 and action = $2 returning role;
