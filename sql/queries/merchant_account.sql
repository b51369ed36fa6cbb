-- name: next_id
select nextval(pg_get_serial_sequence('shouyin.merchant_account', 'id')) as id;

-- name: insert
-- $1 id, $2 provider, $3 mode, $4 name, $5 settings, $6 sealed, $7 now, $8 offers
insert into shouyin.merchant_account (id, provider, mode, name, settings, sealed, offers, created_at, updated_at)
overriding system value values ($1, $2, $3, $4, $5, $6, $8, $7, $7)
returning id, provider, mode, name, settings, offers, enabled, created_at, updated_at, version;

-- name: find
select id, provider, mode, name, settings, sealed, enabled, version from shouyin.merchant_account where id = $1;

-- name: version
select version from shouyin.merchant_account where id = $1;

-- name: list
select id, provider, mode, name, settings, offers, enabled, created_at, updated_at, version
from shouyin.merchant_account order by id;

-- name: set_enabled
update shouyin.merchant_account set enabled = $2, updated_at = $3 where id = $1
returning id, provider, mode, name, settings, offers, enabled, created_at, updated_at, version;

-- name: sealed_for_update
select id, sealed from shouyin.merchant_account where sealed is not null order by id for no key update;

-- name: reseal
update shouyin.merchant_account set sealed = $2, updated_at = $3 where id = $1 returning id;

-- name: lock
select id, provider, mode, name, settings, sealed, version from shouyin.merchant_account where id = $1 for no key update;

-- name: holds_payments
-- Whether an account received money, or may yet, or holds agreements. Leans on payment_by_account and cycle_payment_live.
select exists (
  select from shouyin.payment
  where merchant_account_id = $1 and (status in ('CREATED', 'PENDING', 'SUCCESSFUL') or check_at is not null))
  or exists (
  select from shouyin.cycle_payment
  where merchant_account_id = $1 and (status in ('PENDING', 'ACTIVE', 'SUSPENDED') or ending)) as holds;

-- name: change
-- Other keys or settings for the same account. $1 id, $2 settings, $3 sealed, $4 offers, $5 now
update shouyin.merchant_account set settings = $2, sealed = $3, offers = $4, updated_at = $5 where id = $1
returning id, provider, mode, name, settings, offers, enabled, created_at, updated_at, version;
