-- The demo shop's own side: what a merchant's backend would do with the bound table.

-- name: create_order
-- An unpaid order; the amount is fen, the column yuan.
insert into public.orders (user_id, title, amount, created_at)
values ($1, $2, $3::bigint / 100.0, $4)
returning id, title, amount::text as amount;

-- name: sold
-- The latest orders that money came in for, of all visitors. Leans on the primary key. $1 how many
select id, title
from public.orders
where status in ('paid', 'refunded')
order by id desc
limit $1;

-- name: ways
-- Each way to pay that a page may choose, with the application it runs under where the page names none: that of the
-- oldest enabled account which offers it, as for a payment. `logs_in` says whether web pages can log payers in through it.
select distinct on (o.method) o.method, o.app_ids ->> 0 as app_id, coalesce(w.kind = 'official_account', false) as logs_in
from shouyin.merchant_account a
cross join lateral jsonb_each(a.offers) as o (method, app_ids)
left join shouyin.wechat_app w on w.app_id = o.app_ids ->> 0
where a.enabled and o.method <> 'ALIPAY_CYCLE'
order by o.method, a.id;
