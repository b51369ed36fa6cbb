-- name: next_id
select nextval(pg_get_serial_sequence('shouyin.merchant_account', 'id')) as id;

-- name: insert
-- $1 id, $2 provider, $3 mode, $4 name, $5 settings, $6 sealed, $7 now
insert into shouyin.merchant_account (id, provider, mode, name, settings, sealed, created_at, updated_at)
overriding system value values ($1, $2, $3, $4, $5, $6, $7, $7)
returning id, provider, mode, name, settings, enabled, created_at, updated_at, version;

-- name: find
select id, provider, mode, name, settings, sealed, enabled, version from shouyin.merchant_account where id = $1;

-- name: version
select version from shouyin.merchant_account where id = $1;

-- name: list
select id, provider, mode, name, settings, enabled, created_at, updated_at, version
from shouyin.merchant_account order by id;

-- name: set_enabled
update shouyin.merchant_account set enabled = $2, updated_at = $3 where id = $1
returning id, provider, mode, name, settings, enabled, created_at, updated_at, version;

-- name: sealed_for_update
select id, sealed from shouyin.merchant_account where sealed is not null order by id for no key update;

-- name: reseal
update shouyin.merchant_account set sealed = $2, updated_at = $3 where id = $1 returning id;
