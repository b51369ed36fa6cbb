-- The demo shop's own side: what a merchant's backend would do with the bound table.

-- name: create_order
-- An unpaid order; the amount is fen, the column yuan.
insert into public.orders (user_id, title, amount, created_at)
values ($1, $2, $3::bigint / 100.0, $4)
returning id, title, amount::text as amount;

-- name: providers
-- Providers with an enabled merchant account (merchant_account_by_provider).
select distinct provider
from shouyin.merchant_account
where enabled
order by provider;
