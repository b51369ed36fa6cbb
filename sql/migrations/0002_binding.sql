-- Binding the merchant's order table. The table is named at run time, so that the statements are built here with
-- format(%I) and nowhere else. Afterwards every query reads the view shouyin.bound_order, whatever the table looks like:
--   id          the key itself, of whichever integer type: a cast would hide it from its index
--   owner       text; null without an owner column (anybody's), '' where the row names nobody (an administrator's)
--   amount_fen  numeric; null without an amount column. May be NaN, infinite or a fraction: whatever the column takes
--   status      the column itself, so that it can be written through the view
--   data        the row as jsonb

-- Until a table is bound there are no orders.
create view shouyin.bound_order as
  select null::bigint as id, null::text as owner, null::numeric as amount_fen, null::text as status, null::jsonb as data
  where false;

-- Announces changes of the merchant's rows whoever writes them. tg_argv: the key column's number, which stays when the
-- column is renamed; with its name, a rename would make every later write of the merchant fail. Runs as its owner, because
-- the merchant's role need know nothing of our tables.
create function shouyin.announce_orders() returns trigger language plpgsql
  security definer set search_path = pg_catalog, pg_temp as $$
begin
  execute format('insert into shouyin.change (subject, row_id, order_id) select ''order'', %1$I, %1$I from changed',
    (select a.attname from pg_attribute a where a.attrelid = tg_relid and a.attnum = tg_argv[0]::smallint));
  return null;
end $$;

-- Refuses whatever takes away the bound table or a part of the binding, by whichever statement: DROP … CASCADE and
-- ALTER TABLE … DROP COLUMN … CASCADE would take the view, the foreign key and the triggers along without a word.
create function shouyin.refuse_drop() returns event_trigger language plpgsql
  security definer set search_path = pg_catalog, pg_temp as $$
declare
  dropped record;
begin
  for dropped in
    select d.object_identity from pg_event_trigger_dropped_objects() d
    where (d.object_type = 'table' and d.objid in (select a.order_table from shouyin.activation a))
      or (d.object_type = 'view' and d.object_identity = 'shouyin.bound_order')
      or (d.object_type = 'table constraint' and d.object_identity like 'payment_order on %')
      or (d.object_type = 'trigger' and d.object_identity like 'shouyin\_%')
  loop
    if exists (select from shouyin.activation) then
      raise exception 'shouyin: % belongs to the order table that is bound to payments and cannot be dropped',
        dropped.object_identity
        using hint = 'Turn payments off first (deactivatePayments).';
    end if;
  end loop;
end $$;

-- Adds the foreign key, the view and the triggers. The caller has validated the names and inserts the activation row in
-- the same transaction. Returns whether dropping with CASCADE is guarded too: event triggers need a superuser, and
-- without one only the foreign key and the view stand in the way of a plain DROP TABLE.
create function shouyin.bind_order_table(
  order_table regclass, key_column text, owner_column text, amount_column text, amount_in_fen boolean, status_column text
) returns boolean language plpgsql as $$
declare
  key_number smallint := (
    select a.attnum from pg_attribute a where a.attrelid = order_table and a.attname = key_column);
  guarded boolean := true;
begin
  execute format('alter table shouyin.payment add constraint payment_order foreign key (order_id) references %s (%I)',
    order_table, key_column);
  drop view shouyin.bound_order;
  execute format('create view shouyin.bound_order as select o.%I as id, %s as owner, %s as amount_fen, %s as status,'
    || ' to_jsonb(o.*)%s as data from %s o',
    key_column,
    case when owner_column is null then 'null::text' else format('coalesce(o.%I::text, '''')', owner_column) end,
    case when amount_column is null then 'null::numeric'
         when amount_in_fen then format('o.%I::numeric', amount_column)
         else format('o.%I::numeric * 100', amount_column) end,
    case when status_column is null then 'null::text' else format('o.%I', status_column) end,
    -- yuan leave the API as exact text, never as a JSON number that a client reads into a float
    case when amount_column is null or amount_in_fen then ''
         else format(' || jsonb_build_object(%L, o.%I::text)', amount_column, amount_column) end,
    order_table);
  execute format('create trigger shouyin_announce_insert after insert on %s referencing new table as changed'
    || ' for each statement execute function shouyin.announce_orders(%s)', order_table, key_number);
  execute format('create trigger shouyin_announce_update after update on %s referencing new table as changed'
    || ' for each statement execute function shouyin.announce_orders(%s)', order_table, key_number);
  execute format('create trigger shouyin_refuse_truncate before truncate on %s'
    || ' for each statement execute function shouyin.refuse_truncate()', order_table);
  begin
    if not exists (select from pg_event_trigger where evtname = 'shouyin_refuse_drop') then
      create event trigger shouyin_refuse_drop on sql_drop execute function shouyin.refuse_drop();
    end if;
  exception when insufficient_privilege then
    guarded := false;
  end;
  return guarded;
end $$;

-- Opens a payment: every check that needs the order, under the order's lock, and the row with its event, in one round
-- trip. plpgsql takes a new snapshot for each statement, so that what is read after the lock was granted is what the
-- previous holder committed. `refusal` is null when a row was opened or found; the application explains the codes.
create function shouyin.open_payment(
  p_order_id bigint, p_sub text, p_is_admin boolean, p_merchant_account_id bigint, p_provider text, p_method text,
  p_amount_fen bigint, p_subject text, p_out_trade_no text, p_openid text, p_return_url text,
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
    select * into payment from shouyin.payment p where p.created_by = p_sub and p.idempotency_key = p_idempotency_key;
    if found then
      replayed := true;
      if payment.input_hash <> p_input_hash then refusal := 'IDEMPOTENCY_CONFLICT'; end if;
      return;
    end if;
  end if;
  if feature.plan_expires_at <= p_now then refusal := 'PLAN_EXPIRED'; return; end if;
  select a.id, a.version into account from shouyin.merchant_account a
    where a.provider = p_provider and a.enabled and (p_merchant_account_id is null or a.id = p_merchant_account_id)
    order by a.id limit 1;
  if not found then refusal := 'METHOD_NOT_CONFIGURED'; return; end if;
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
  if exists (select from shouyin.payment p where p.order_id = p_order_id and p.status = 'SUCCESSFUL') then
    refusal := 'ORDER_ALREADY_PAID'; return;
  end if;

  begin
    insert into shouyin.payment (order_id, owner, merchant_account_id, provider, method, amount_fen, subject, out_trade_no,
      openid, return_url, created_by, idempotency_key, input_hash, correlation_id, expires_at, created_at, updated_at, check_at)
    values (p_order_id, bound.owner, account.id, p_provider, p_method, asked_fen, p_subject,
      p_out_trade_no, p_openid, p_return_url, p_sub, p_idempotency_key, p_input_hash, p_correlation_id, p_expires_at, p_now,
      p_now, p_check_at)
    returning * into payment;
  exception when unique_violation then
    -- Two at once with one key for two orders: the loser finds the winner's row, or a number that is taken (a bug).
    select * into strict payment from shouyin.payment p where p.created_by = p_sub and p.idempotency_key = p_idempotency_key;
    replayed := true;
    if payment.input_hash <> p_input_hash then refusal := 'IDEMPOTENCY_CONFLICT'; end if;
    return;
  end;
  insert into shouyin.event (kind, payment_id, order_id, correlation_id, created_at)
  values ('payment.created', payment.id, payment.order_id, p_correlation_id, p_now);
end $$;
