-- Who may do what.

-- name: held
-- An action as granted to any of some roles; no row: to none. Bounds are the most generous, null is none.
-- $1 roles, $2 action
select case when bool_or(largest_refund_fen is null) then null else max(largest_refund_fen) end as largest_refund_fen,
  case when bool_or(largest_refund_per_day_fen is null) then null else max(largest_refund_per_day_fen) end
    as largest_refund_per_day_fen
from shouyin.permission where role = any($1::text[]) and action = $2
having count(*) > 0;

-- name: list
select role, action, largest_refund_fen, largest_refund_per_day_fen, granted_by, granted_at
from shouyin.permission order by role, action;

-- name: grant
-- No row: it is granted so already. $1 role, $2 action, $3 largest refund, $4 largest sum a day, $5 who, $6 now
insert into shouyin.permission as p (role, action, largest_refund_fen, largest_refund_per_day_fen, granted_by, granted_at)
values ($1, $2, $3, $4, $5, $6)
on conflict (role, action) do update
set largest_refund_fen = excluded.largest_refund_fen, largest_refund_per_day_fen = excluded.largest_refund_per_day_fen,
  granted_by = excluded.granted_by, granted_at = excluded.granted_at
where (p.largest_refund_fen, p.largest_refund_per_day_fen)
  is distinct from (excluded.largest_refund_fen, excluded.largest_refund_per_day_fen)
returning role;

-- name: revoke
-- No row: it was not granted. $1 role, $2 action
delete from shouyin.permission where role = $1 and action = $2 returning role;
