-- Turning payments off, and what the finance person takes along.

-- Books are read by the day the money moved, in pages: where one ends the next begins.
create index payment_by_paid_at on shouyin.payment (paid_at, id) where paid_at is not null;
create index refund_by_refunded_at on shouyin.refund (refunded_at, id) where refunded_at is not null;

-- Holds everything that turning off clears, the merchant's own table included, against everybody, until the transaction
-- ends. The activation comes first: who opens a payment or a refund reads it, and then finds it gone. The others have no
-- order that every transaction would follow, so that the caller bounds the wait and tries again.
create function shouyin.hold_payments() returns void language plpgsql as $$
declare
  bound regclass;
begin
  lock table shouyin.activation in access exclusive mode;
  select a.order_table into bound from shouyin.activation a;
  if found then execute format('lock table %s in access exclusive mode', bound); end if;
  lock table shouyin.payment, shouyin.refund, shouyin.flow_run, shouyin.event, shouyin.difference, shouyin.notification,
    shouyin.merchant_account, shouyin.permission in access exclusive mode;
end $$;

-- Takes the foreign key, the triggers and the view away from the bound table; what it holds stays. The event trigger that
-- guards it stays too, and guards nothing without an activation: a role that may not make one could not bring it back.
create function shouyin.unbind_order_table() returns void language plpgsql as $$
declare
  bound regclass;
begin
  delete from shouyin.activation returning order_table into strict bound;
  alter table shouyin.payment drop constraint payment_order;
  drop view shouyin.bound_order;
  create view shouyin.bound_order as
    select null::bigint as id, null::text as owner, null::numeric as amount_fen, null::text as status, null::jsonb as data
    where false;
  execute format('drop trigger shouyin_announce_insert on %s', bound);
  execute format('drop trigger shouyin_announce_update on %s', bound);
  execute format('drop trigger shouyin_refuse_truncate on %s', bound);
end $$;

-- Turns payments off: everything `hold_payments` holds is emptied, and permissions are what they are at first. Numbers go on
-- rising: an id that was somebody's payment is nobody else's. Every process hears that its merchant accounts are gone, and
-- that statements prepared for the old table are stale ("activation").
create function shouyin.clear_payments(p_now timestamptz) returns void language plpgsql as $$
begin
  insert into shouyin.change (subject, row_id, version) select 'merchant_account', id, version from shouyin.merchant_account;
  insert into shouyin.change (subject, row_id) values ('activation', 1);
  perform shouyin.unbind_order_table();
  alter table shouyin.payment disable trigger refuse_truncate;
  alter table shouyin.refund disable trigger refuse_truncate;
  truncate shouyin.flow_run, shouyin.event, shouyin.difference, shouyin.notification, shouyin.refund, shouyin.payment,
    shouyin.merchant_account;
  alter table shouyin.payment enable trigger refuse_truncate;
  alter table shouyin.refund enable trigger refuse_truncate;
  delete from shouyin.permission;
  insert into shouyin.permission (role, action, granted_by, granted_at)
  select '*', action, 'migration', p_now
  from unnest(array['payment.create', 'payment.close', 'payment.sync']) as action;
end $$;
