-- name: receive
-- Records a provider's event once; a repeat raises the count and wakes it again. One statement, one commit. Due at once,
-- which is not "now": a worker whose clock is slow would not see it.
-- $1 provider, $2 account, $3 event key, $4 report, $5 body, $6 correlation id, $7 now
insert into shouyin.notification (provider, merchant_account_id, event_key, report, body, correlation_id, received_at, due_at)
values ($1, $2, $3, $4, $5, $6, $7, '-infinity')
on conflict (merchant_account_id, event_key) do update
set received_count = shouyin.notification.received_count + 1, due_at = excluded.due_at
returning id, received_count;

-- name: claim_due
-- Takes waiting notifications until $2 (the lease), at most $3. Leans on notification_due. Fresh ones come before those
-- that failed.
update shouyin.notification
set due_at = $2, attempts = attempts + 1
where id = any (array(
  select id from shouyin.notification where due_at <= $1 order by due_at, id limit $3 for no key update skip locked))
returning id, merchant_account_id, attempts;

-- name: lock
select id, provider, merchant_account_id, report, correlation_id, received_count, handled_count
from shouyin.notification where id = $1 and handled_count < received_count for no key update;

-- name: done
-- $1 id, $2 the count that is handled now. A repeat that arrived meanwhile waits for the row lock and wakes it again.
update shouyin.notification set handled_count = $2, due_at = null, error = null, attempts = 0 where id = $1 returning id;

-- name: postpone
-- $1 id, $2 due_at, $3 error
update shouyin.notification set due_at = $2, error = $3 where id = $1 and due_at is not null returning id;
