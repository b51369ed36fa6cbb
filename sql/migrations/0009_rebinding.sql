-- Rebinding: new payments are of another table, and older ones keep theirs. What a payment's order is then takes two numbers:
-- the binding's, and the row's key. Ids of two tables may be the same.

-- While this file changes what a bound table is guarded by, the guard looks away. It is back at the end.
create or replace function shouyin.refuse_drop() returns event_trigger language plpgsql
  security definer set search_path = pg_catalog, pg_temp as $$
begin
end $$;

-- Numbers of bindings only rise: one that was turned off is no other's.
create sequence shouyin.binding_number as smallint;
select setval('shouyin.binding_number', 1) from shouyin.activation;
alter table shouyin.activation add column binding_id smallint not null default 1;
alter table shouyin.activation alter column binding_id drop default;

-- Tables that were bound before, for the payments they had. One that is bound again gets its number back.
create table shouyin.former_binding (
  binding_id smallint primary key,
  order_table regclass not null unique,
  order_table_name text not null,
  key_column text not null,
  owner_column text,
  amount_column text,
  amount_in_fen boolean not null,
  status_column text,
  paid_status text,
  failed_status text,
  refunded_status text,
  drop_guarded boolean not null,
  activated_at timestamptz not null,
  replaced_at timestamptz not null
);

-- The binding of any payment, present or former.
create view shouyin.binding as
  select binding_id, order_table, order_table_name, amount_column, status_column, paid_status, failed_status, refunded_status
  from shouyin.activation
  union all
  select binding_id, order_table, order_table_name, amount_column, status_column, paid_status, failed_status, refunded_status
  from shouyin.former_binding;

alter table shouyin.payment add column binding_id smallint not null default 1;

drop index shouyin.payment_by_order;
create index payment_by_order on shouyin.payment (binding_id, order_id, id);
drop index shouyin.payment_paid_by_order;
create index payment_paid_by_order on shouyin.payment (binding_id, order_id) where status = 'SUCCESSFUL';
-- One caller's key names one payment of one binding: a page that makes its key of the order's id may meet that id again.
drop index shouyin.payment_idempotency;
create unique index payment_idempotency on shouyin.payment (created_by, idempotency_key, binding_id)
  where idempotency_key is not null;

-- Orders that must stay, because something of ours is about them. Whoever opens such a thing adds its order here, in the same
-- transaction (on conflict do nothing). Each binding has a partition with a foreign key of its own to its table: a column
-- of payments could refer to one table only, and a trigger would not see what a repeatable-read transaction cannot see.
create table shouyin.kept_order (
  binding_id smallint not null,
  order_id bigint not null,
  primary key (binding_id, order_id)
) partition by list (binding_id);

-- A binding's part of `kept_order`.
create function shouyin.keep_orders(p_binding_id smallint, p_order_table regclass) returns void language plpgsql as $$
begin
  execute format('create table shouyin.kept_order_%1$s partition of shouyin.kept_order for values in (%1$s)', p_binding_id);
  insert into shouyin.kept_order (binding_id, order_id)
  select distinct p.binding_id, p.order_id from shouyin.payment p where p.binding_id = p_binding_id;
  execute format('alter table shouyin.kept_order_%s add constraint payment_order foreign key (order_id) references %s',
    p_binding_id, p_order_table);
end $$;

-- Each binding has a view of its own, with the columns that 0002 describes; `bound_order` is the present one's.
create function shouyin.point_to_binding(p_binding_id smallint) returns void language plpgsql as $$
begin
  execute format('create view shouyin.bound_order as select id, owner, amount_fen, status, data from shouyin.bound_order_%s',
    p_binding_id);
end $$;

do $$
declare
  feature shouyin.activation;
begin
  select * into feature from shouyin.activation;
  if found then
    alter table shouyin.payment drop constraint payment_order;
    alter view shouyin.bound_order rename to bound_order_1;
    perform shouyin.point_to_binding(1::smallint);
    perform shouyin.keep_orders(1::smallint, feature.order_table);
  end if;
end $$;

-- Orders of one binding, whichever it is. The statement is built and planned anew each time: for the table that is bound now
-- read `bound_order`.
create function shouyin.orders_of(p_binding_id smallint, p_order_ids bigint[])
  returns table (id bigint, owner text, amount_fen numeric, status text, data jsonb) language plpgsql stable as $$
begin
  if exists (select from shouyin.binding b where b.binding_id = p_binding_id) then
    return query execute format('select o.id::bigint, o.owner, o.amount_fen::numeric, o.status::text, o.data'
      || ' from shouyin.bound_order_%s o where o.id = any($1)', p_binding_id) using p_order_ids;
  end if;
end $$;

-- Writes an order's status, unless it says so already; whether it did. The word takes the column's own type, an enum perhaps.
create function shouyin.mark_order(p_binding_id smallint, p_order_id bigint, p_status text) returns boolean
  language plpgsql as $$
declare
  marked bigint;
begin
  execute format('update shouyin.bound_order_%1$s set status = %2$L where id = $1 and status::text is distinct from %2$L',
    p_binding_id, p_status) using p_order_id;
  get diagnostics marked = row_count;
  return marked > 0;
end $$;

drop function shouyin.bind_order_table(regclass, text, text, text, boolean, text);

-- Makes a table the one that new payments are of: its view, its triggers, its part of `kept_order`. The caller has validated
-- the names and inserts the activation row in the same transaction; there is none before. A former table gets its number
-- back. `drop_guarded` says whether dropping with CASCADE is guarded too: event triggers need a superuser, and without
-- one only the foreign key and the view stand in the way of a plain DROP TABLE.
create function shouyin.bind_order_table(
  p_order_table regclass, key_column text, owner_column text, amount_column text, amount_in_fen boolean, status_column text,
  out drop_guarded boolean, out binding_id smallint
) language plpgsql as $$
declare
  key_number smallint := (
    select a.attnum from pg_attribute a where a.attrelid = p_order_table and a.attname = key_column);
begin
  drop view shouyin.bound_order;
  delete from shouyin.former_binding f where f.order_table = p_order_table returning f.binding_id into binding_id;
  if found then
    execute format('drop view shouyin.bound_order_%s', binding_id);
  else
    binding_id := nextval('shouyin.binding_number');
    perform shouyin.keep_orders(binding_id, p_order_table);
    execute format('create trigger shouyin_refuse_truncate before truncate on %s'
      || ' for each statement execute function shouyin.refuse_truncate()', p_order_table);
  end if;
  execute format('create view shouyin.bound_order_%s as select o.%I as id, %s as owner, %s as amount_fen, %s as status,'
    || ' to_jsonb(o.*)%s as data from %s o',
    binding_id, key_column,
    case when owner_column is null then 'null::text' else format('coalesce(o.%I::text, '''')', owner_column) end,
    case when amount_column is null then 'null::numeric'
         when amount_in_fen then format('o.%I::numeric', amount_column)
         else format('o.%I::numeric * 100', amount_column) end,
    case when status_column is null then 'null::text' else format('o.%I', status_column) end,
    -- yuan leave the API as exact text, never as a JSON number that a client reads into a float
    case when amount_column is null or amount_in_fen then ''
         else format(' || jsonb_build_object(%L, o.%I::text)', amount_column, amount_column) end,
    p_order_table);
  perform shouyin.point_to_binding(binding_id);
  execute format('create trigger shouyin_announce_insert after insert on %s referencing new table as changed'
    || ' for each statement execute function shouyin.announce_orders(%s)', p_order_table, key_number);
  execute format('create trigger shouyin_announce_update after update on %s referencing new table as changed'
    || ' for each statement execute function shouyin.announce_orders(%s)', p_order_table, key_number);
  drop_guarded := true;
  begin
    if not exists (select from pg_event_trigger where evtname = 'shouyin_refuse_drop') then
      create event trigger shouyin_refuse_drop on sql_drop execute function shouyin.refuse_drop();
    end if;
  exception when insufficient_privilege then
    drop_guarded := false;
  end;
end $$;

-- Holds what rebinding changes against everybody: the activation, which whoever opens a payment or runs a flow reads first,
-- the table that is bound, and the one that will be. The caller bounds the wait and tries again.
create function shouyin.hold_bindings(p_order_table regclass) returns void language plpgsql as $$
declare
  bound regclass;
begin
  lock table shouyin.activation, shouyin.former_binding in access exclusive mode;
  select a.order_table into bound from shouyin.activation a;
  if found then execute format('lock table %s in access exclusive mode', bound); end if;
  execute format('lock table %s in access exclusive mode', p_order_table);
end $$;

-- Makes the bound table a former one; the activation row is gone afterwards, and comes back with the next table and the
-- same plan. Its changes are announced no longer, since nobody can watch its rows. Every process hears that another table
-- is bound ("activation").
create function shouyin.set_binding_aside(
  p_now timestamptz, out plan text, out plan_expires_at timestamptz, out plan_warned_days smallint
) language plpgsql as $$
declare
  former shouyin.activation;
begin
  delete from shouyin.activation returning * into strict former;
  insert into shouyin.former_binding (binding_id, order_table, order_table_name, key_column, owner_column, amount_column,
    amount_in_fen, status_column, paid_status, failed_status, refunded_status, drop_guarded, activated_at, replaced_at)
  values (former.binding_id, former.order_table, former.order_table_name, former.key_column, former.owner_column,
    former.amount_column, former.amount_in_fen, former.status_column, former.paid_status, former.failed_status,
    former.refunded_status, former.drop_guarded, former.activated_at, p_now);
  execute format('drop trigger shouyin_announce_insert on %s', former.order_table);
  execute format('drop trigger shouyin_announce_update on %s', former.order_table);
  insert into shouyin.change (subject, row_id) values ('activation', former.binding_id);
  plan := former.plan;
  plan_expires_at := former.plan_expires_at;
  plan_warned_days := former.plan_warned_days;
end $$;

-- Holds everything that turning off clears, the merchant's own tables included, against everybody, until the transaction
-- ends. The activation comes first: who opens a payment or a refund reads it, and then finds it gone. The others have no
-- order that every transaction would follow, so that the caller bounds the wait and tries again.
create or replace function shouyin.hold_payments() returns void language plpgsql as $$
declare
  bound regclass;
begin
  lock table shouyin.activation, shouyin.former_binding in access exclusive mode;
  for bound in select b.order_table from shouyin.binding b loop
    execute format('lock table %s in access exclusive mode', bound);
  end loop;
  lock table shouyin.payment, shouyin.refund, shouyin.flow_run, shouyin.event, shouyin.difference, shouyin.notification,
    shouyin.merchant_account, shouyin.permission, shouyin.kept_order in access exclusive mode;
end $$;

-- Takes the foreign keys, the triggers and the views away from all tables that are or were bound; what they hold stays. The
-- event trigger that guards them stays too, and guards nothing without an activation: a role that may not make one could not
-- bring it back.
create or replace function shouyin.unbind_order_table() returns void language plpgsql as $$
declare
  numbers smallint[];
  tables regclass[];
begin
  select array_agg(b.binding_id), array_agg(b.order_table) into numbers, tables from shouyin.binding b;
  delete from shouyin.activation;
  delete from shouyin.former_binding;
  drop view shouyin.bound_order;
  create view shouyin.bound_order as
    select null::bigint as id, null::text as owner, null::numeric as amount_fen, null::text as status, null::jsonb as data
    where false;
  for n in 1 .. cardinality(numbers) loop
    execute format('drop view shouyin.bound_order_%s', numbers[n]);
    execute format('drop table shouyin.kept_order_%s', numbers[n]);
    execute format('drop trigger if exists shouyin_announce_insert on %s', tables[n]);
    execute format('drop trigger if exists shouyin_announce_update on %s', tables[n]);
    execute format('drop trigger shouyin_refuse_truncate on %s', tables[n]);
  end loop;
end $$;

-- Opens a payment: every check that needs the order, under the order's lock, and the row with its event, in one round
-- trip. plpgsql takes a new snapshot for each statement, so that what is read after the lock was granted is what the
-- previous holder committed. The order is of the table that is bound now, and so is the key. `refusal` is null when a row was
-- opened or found; the application explains the codes.
create or replace function shouyin.open_payment(
  p_order_id bigint, p_sub text, p_is_admin boolean, p_roles text[], p_merchant_account_id bigint, p_provider text, p_method text,
  p_amount_fen bigint, p_subject text, p_out_trade_no text, p_openid text, p_app_id text, p_client_address text, p_return_url text,
  p_idempotency_key text, p_input_hash bytea, p_correlation_id text, p_expires_at timestamptz, p_now timestamptz,
  p_check_at timestamptz, p_minimum_fen bigint, p_maximum_fen bigint,
  out refusal text, out order_amount_fen numeric, out account_version integer, out replayed boolean,
  out payment shouyin.payment
) language plpgsql as $$
declare
  bound record;
  feature shouyin.activation;
  account record;
  asked_fen numeric;
begin
  replayed := false;
  select * into feature from shouyin.activation;
  if not found then refusal := 'PAYMENTS_NOT_ACTIVE'; return; end if;
  if p_idempotency_key is not null then
    select * into payment from shouyin.payment p where p.created_by = p_sub and p.idempotency_key = p_idempotency_key
      and p.binding_id = feature.binding_id;
    if found then
      replayed := true;
      if payment.input_hash <> p_input_hash then refusal := 'IDEMPOTENCY_CONFLICT'; end if;
      return;
    end if;
  end if;
  if feature.plan_expires_at <= p_now then refusal := 'PLAN_EXPIRED'; return; end if;
  if not p_is_admin and not exists (
    select from shouyin.permission g where g.action = 'payment.create' and g.role = any(p_roles))
  then refusal := 'FORBIDDEN'; return; end if;
  select a.id, a.version, coalesce(p_app_id, a.offers -> p_method ->> 0) as app_id into account
    from shouyin.merchant_account a
    where a.provider = p_provider and a.enabled and a.offers ? p_method
      and (p_app_id is null or a.offers -> p_method ? p_app_id)
      and (p_merchant_account_id is null or a.id = p_merchant_account_id)
    order by a.id limit 1;
  if not found then
    refusal := case when p_app_id is null then 'METHOD_NOT_CONFIGURED' else 'APP_NOT_CONFIGURED' end;
    return;
  end if;
  account_version := account.version;

  select o.owner, o.amount_fen into bound from shouyin.bound_order o where o.id = p_order_id for no key update;
  if not found or (not p_is_admin and feature.owner_column is not null and bound.owner is distinct from p_sub) then
    refusal := 'ORDER_NOT_FOUND'; return;
  end if;
  order_amount_fen := bound.amount_fen;
  if p_amount_fen is null and (feature.amount_column is null or bound.amount_fen is null) then
    refusal := 'AMOUNT_MISSING'; return;
  end if;
  if feature.amount_column is not null and p_amount_fen is not null and bound.amount_fen is distinct from p_amount_fen then
    refusal := 'AMOUNT_MISMATCH'; return;
  end if;
  -- An order's own amount meets the same limits (NaN is above them all), and may have a fraction of a fen that nobody can pay.
  asked_fen := coalesce(p_amount_fen, bound.amount_fen);
  if asked_fen not between p_minimum_fen and p_maximum_fen or asked_fen <> trunc(asked_fen) then
    refusal := 'INVALID_AMOUNT'; return;
  end if;
  if exists (
    select from shouyin.payment p
    where p.binding_id = feature.binding_id and p.order_id = p_order_id and p.status = 'SUCCESSFUL')
  then
    refusal := 'ORDER_ALREADY_PAID'; return;
  end if;

  begin
    insert into shouyin.kept_order (binding_id, order_id) values (feature.binding_id, p_order_id) on conflict do nothing;
    insert into shouyin.payment (binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, subject,
      out_trade_no, openid, app_id, client_address, return_url, created_by, idempotency_key, input_hash, correlation_id,
      expires_at, created_at, updated_at, check_at)
    values (feature.binding_id, p_order_id, bound.owner, account.id, p_provider, p_method, asked_fen, p_subject,
      p_out_trade_no, p_openid, account.app_id, p_client_address, p_return_url, p_sub, p_idempotency_key, p_input_hash,
      p_correlation_id, p_expires_at, p_now, p_now, p_check_at)
    returning * into payment;
  exception when unique_violation then
    -- Two at once with one key for two orders: the loser finds the winner's row, or a number that is taken (a bug).
    select * into strict payment from shouyin.payment p where p.created_by = p_sub and p.idempotency_key = p_idempotency_key
      and p.binding_id = feature.binding_id;
    replayed := true;
    if payment.input_hash <> p_input_hash then refusal := 'IDEMPOTENCY_CONFLICT'; end if;
    return;
  end;
  insert into shouyin.event (kind, payment_id, order_id, correlation_id, created_at)
  values ('payment.created', payment.id, payment.order_id, p_correlation_id, p_now);
end $$;

-- Refuses whatever takes away a table that is or was bound, or a part of its binding, by whichever statement: DROP …
-- CASCADE and ALTER TABLE … DROP COLUMN … CASCADE would take the view, the foreign key and the triggers along without a
-- word.
create or replace function shouyin.refuse_drop() returns event_trigger language plpgsql
  security definer set search_path = pg_catalog, pg_temp as $$
declare
  dropped record;
begin
  for dropped in
    select d.object_identity from pg_event_trigger_dropped_objects() d
    where (d.object_type = 'table' and d.objid in (select b.order_table from shouyin.binding b))
      or (d.object_type = 'view' and d.object_identity like 'shouyin.bound\_order%')
      or (d.object_type = 'table constraint' and d.object_identity like 'payment_order on %')
      or (d.object_type = 'trigger' and d.object_identity like 'shouyin\_%')
  loop
    if exists (select from shouyin.activation) then
      raise exception 'shouyin: % belongs to an order table that payments are of and cannot be dropped',
        dropped.object_identity
        using hint = 'Turn payments off first (deactivatePayments).';
    end if;
  end loop;
end $$;
