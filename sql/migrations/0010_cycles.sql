-- Cycle payments: an agreement that a payer signs once, and the deductions made under it on schedule.
--
--   cycle_payment  one agreement; its due dates are first_deduction_on + n * interval_days, moved only by a change of date
--   deduction      one due date of one cycle, unique; carries the order that was made for it
--   payment        one attempt to take the money of a deduction, or the first payment made while signing

create table shouyin.cycle_payment (
  id bigint generated always as identity primary key,
  binding_id smallint not null,
  order_id bigint not null,
  owner text,
  -- who signs: the order's owner, or who started it where orders have none
  payer text not null,
  merchant_account_id bigint not null references shouyin.merchant_account,
  provider text not null,
  method text not null,
  scene text not null,
  subject text not null,
  -- of the next deduction; what was signed is that none comes to more than the ceiling
  price_fen bigint not null check (price_fen > 0),
  ceiling_fen bigint not null,
  interval_days integer not null check (interval_days > 0),
  external_agreement_no text not null unique check (char_length(external_agreement_no) between 6 and 32),
  agreement_no text,
  payer_id text,
  status text not null default 'PENDING'
    check (status in ('PENDING', 'ACTIVE', 'SUSPENDED', 'CANCELLED', 'EXPIRED')),
  suspended_for text check (suspended_for in ('PAUSE', 'FAILURES', 'RULE')),
  -- we want it ended and the provider has not said so yet: nothing more is deducted
  ending boolean not null default false,
  first_deduction_on date not null,
  -- null before it is signed and once it is over
  next_deduction_on date,
  -- when the payer's coming deduction is announced; null once it was
  notice_on date,
  -- the due date that was announced last: none is announced twice, however often it is put before us
  announced_on date,
  -- where the provider's own plan stands, as far as we know, and how often it was put off
  plan_on date,
  plan_changes integer not null default 0,
  deductions integer not null default 0,
  paid_deductions integer not null default 0,
  -- due dates in a row that no attempt could take
  failed_dates integer not null default 0,
  open_deduction_id bigint,
  failure jsonb,
  action jsonb,
  return_url text,
  first_payment_id bigint references shouyin.payment,
  created_by text not null,
  idempotency_key text,
  input_hash bytea not null,
  correlation_id text,
  expires_at timestamptz not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  signed_at timestamptz,
  ended_at timestamptz,
  valid_until timestamptz,
  check_at timestamptz,
  check_attempts integer not null default 0,
  version integer not null default 1,
  check (price_fen <= ceiling_fen),
  check ((status = 'SUSPENDED') = (suspended_for is not null))
);
-- One live agreement per user, merchant and scene: the provider would refuse the second at the payer's face.
create unique index cycle_payment_live on shouyin.cycle_payment (merchant_account_id, payer, scene)
  where status in ('PENDING', 'ACTIVE', 'SUSPENDED');
create unique index cycle_payment_idempotency on shouyin.cycle_payment (created_by, idempotency_key, binding_id)
  where idempotency_key is not null;
create index cycle_payment_by_payer on shouyin.cycle_payment (payer, id);
create index cycle_payment_by_order on shouyin.cycle_payment (binding_id, order_id);
create index cycle_payment_by_agreement on shouyin.cycle_payment (agreement_no) where agreement_no is not null;
-- Of a million cycles the daily run reads those that are due, and none twice.
create index cycle_payment_due on shouyin.cycle_payment (next_deduction_on, id)
  where status = 'ACTIVE' and not ending and open_deduction_id is null;
create index cycle_payment_to_announce on shouyin.cycle_payment (notice_on, id)
  where status = 'ACTIVE' and not ending and notice_on is not null;
create index cycle_payment_to_check on shouyin.cycle_payment (check_at) where check_at is not null;

create table shouyin.deduction (
  id bigint generated always as identity primary key,
  cycle_payment_id bigint not null references shouyin.cycle_payment,
  merchant_account_id bigint not null references shouyin.merchant_account,
  due_on date not null,
  sequence integer not null,
  price_fen bigint not null check (price_fen > 0),
  -- what the numbers of its payments begin with
  number text not null unique,
  -- WAITING for its order; CHARGING until some attempt is known to have taken the money or none is left
  status text not null default 'WAITING' check (status in ('WAITING', 'CHARGING', 'PAID', 'FAILED', 'SKIPPED')),
  binding_id smallint not null,
  order_id bigint,
  -- the present attempt
  payment_id bigint references shouyin.payment,
  attempts integer not null default 0,
  -- attempts that the payer could have met; the others were the merchant's or the calendar's fault
  tries integer not null default 0,
  -- the attempt whose end was dealt with; the next one waits for attempt_at
  settled_payment_id bigint,
  -- how often the present attempt was taken up; above one its number may be known to the provider
  calls integer not null default 0,
  -- when it is worked on next; -infinity where something has happened to it, which no hold keeps from being taken note of
  attempt_at timestamptz,
  failure jsonb,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  finished_at timestamptz,
  unique (cycle_payment_id, due_on),
  unique (binding_id, order_id)
);
create index deduction_to_do on shouyin.deduction (attempt_at, id) where attempt_at is not null;

alter table shouyin.cycle_payment
  add foreign key (open_deduction_id) references shouyin.deduction;
alter table shouyin.payment
  add column cycle_payment_id bigint references shouyin.cycle_payment,
  add column deduction_id bigint references shouyin.deduction;
create index payment_by_cycle on shouyin.payment (cycle_payment_id, id) where cycle_payment_id is not null;
create index payment_by_deduction on shouyin.payment (deduction_id, id) where deduction_id is not null;
alter table shouyin.event
  add column cycle_payment_id bigint references shouyin.cycle_payment,
  add column deduction_id bigint references shouyin.deduction;

-- A merchant account whose own contract the provider objects to: no payer is at fault, and nobody is asked for money until
-- the hold is over or lifted.
create table shouyin.deduction_hold (
  merchant_account_id bigint primary key references shouyin.merchant_account,
  held_until timestamptz not null,
  failure jsonb not null,
  since timestamptz not null
);

-- Which columns of the original order a deduction's order takes over; null takes those that say nothing about one order alone.
alter table shouyin.activation add column cycle_order_columns text[];
alter table shouyin.former_binding add column cycle_order_columns text[];
create or replace view shouyin.binding as
  select binding_id, order_table, order_table_name, amount_column, status_column, paid_status, failed_status, refunded_status,
    key_column, amount_in_fen, cycle_order_columns, owner_column
  from shouyin.activation
  union all
  select binding_id, order_table, order_table_name, amount_column, status_column, paid_status, failed_status, refunded_status,
    key_column, amount_in_fen, cycle_order_columns, owner_column
  from shouyin.former_binding;

update shouyin.merchant_account set offers = offers || '{"ALIPAY_CYCLE": []}' where provider = 'ALIPAY';

insert into shouyin.permission (role, action, granted_by, granted_at)
select '*', action, 'migration', now()
from unnest(array['cycle.start', 'cycle.cancel', 'cycle.pause']) as action;

create trigger raise_version before update on shouyin.cycle_payment for each row
  when ((old.status, old.suspended_for, old.ending, old.price_fen, old.next_deduction_on, old.plan_on, old.agreement_no,
         old.paid_deductions, old.failed_dates, old.open_deduction_id, old.failure, old.action, old.valid_until)
    is distinct from (new.status, new.suspended_for, new.ending, new.price_fen, new.next_deduction_on, new.plan_on,
         new.agreement_no, new.paid_deductions, new.failed_dates, new.open_deduction_id, new.failure, new.action,
         new.valid_until))
  execute function shouyin.raise_version();

create function shouyin.announce_cycle_payment() returns trigger language plpgsql as $$
begin
  -- Without the version: the one that watchers see counts the changes of its payments, too.
  insert into shouyin.change (subject, row_id, order_id, owner)
  values ('cycle_payment', new.id, new.order_id, new.owner);
  return null;
end $$;
create trigger announce_insert after insert on shouyin.cycle_payment
  for each row execute function shouyin.announce_cycle_payment();
create trigger announce_update after update on shouyin.cycle_payment
  for each row when (old.version < new.version) execute function shouyin.announce_cycle_payment();
-- As 0004 has it; a payment's change is one of its cycle as well, which has no version of its own for that.
create or replace function shouyin.announce_payment() returns trigger language plpgsql as $$
begin
  insert into shouyin.change (subject, row_id, version, order_id, owner)
  values ('payment', new.id, new.version, new.order_id, new.owner);
  if new.cycle_payment_id is not null then
    insert into shouyin.change (subject, row_id, order_id, owner)
    values ('cycle_payment', new.cycle_payment_id, new.order_id, new.owner);
  end if;
  return null;
end $$;

create trigger refuse_truncate before truncate on shouyin.cycle_payment
  for each statement execute function shouyin.refuse_truncate();
create trigger refuse_truncate before truncate on shouyin.deduction
  for each statement execute function shouyin.refuse_truncate();

-- Whoever brings a deduction's payment to its end, a notice, a question or a late success, wakes the deduction. In the same
-- transaction, so that none is forgotten.
create function shouyin.wake_deduction() returns trigger language plpgsql as $$
begin
  update shouyin.deduction d set attempt_at = '-infinity'
  where d.id = new.deduction_id and (d.status = 'CHARGING' or new.status = 'SUCCESSFUL' and d.status <> 'PAID');
  return null;
end $$;
create trigger wake_deduction after update on shouyin.payment for each row
  when (new.deduction_id is not null and old.status <> new.status and new.status in ('SUCCESSFUL', 'FAILED', 'CLOSED'))
  execute function shouyin.wake_deduction();

-- Starts a cycle payment: every check that needs the order, under its lock; the row, and with p_pay_now the payment that is
-- made while signing. `refusal` is null when a row was opened or found; the application explains the codes.
create function shouyin.open_cycle(
  p_order_id bigint, p_sub text, p_is_admin boolean, p_roles text[], p_merchant_account_id bigint, p_method text, p_scene text,
  p_subject text, p_price_fen bigint, p_ceiling_fen bigint, p_interval_days integer, p_first_deduction_on date,
  p_external_agreement_no text, p_return_url text, p_idempotency_key text, p_input_hash bytea, p_correlation_id text,
  p_expires_at timestamptz, p_now timestamptz, p_check_at timestamptz, p_out_trade_no text,
  out refusal text, out live_id bigint, out order_amount_fen numeric, out account_version integer, out replayed boolean,
  out cycle shouyin.cycle_payment
) language plpgsql as $$
declare
  bound record;
  feature shouyin.activation;
  account record;
  signer text;
  hindered text;
  first_id bigint;
begin
  replayed := false;
  select * into feature from shouyin.activation;
  if not found then refusal := 'PAYMENTS_NOT_ACTIVE'; return; end if;
  if p_idempotency_key is not null then
    select * into cycle from shouyin.cycle_payment c where c.created_by = p_sub and c.idempotency_key = p_idempotency_key
      and c.binding_id = feature.binding_id;
    if found then
      replayed := true;
      if cycle.input_hash <> p_input_hash then refusal := 'IDEMPOTENCY_CONFLICT'; end if;
      return;
    end if;
  end if;
  if feature.plan_expires_at <= p_now then refusal := 'PLAN_EXPIRED'; return; end if;
  if not p_is_admin and not exists (
    select from shouyin.permission g where g.action = 'cycle.start' and g.role = any(p_roles))
  then refusal := 'FORBIDDEN'; return; end if;
  select a.id, a.version, a.provider into account from shouyin.merchant_account a
    where a.id = p_merchant_account_id and a.enabled and a.offers ? p_method;
  if not found then refusal := 'METHOD_NOT_CONFIGURED'; return; end if;
  account_version := account.version;

  select o.owner, o.amount_fen into bound from shouyin.bound_order o where o.id = p_order_id for no key update;
  if not found or (not p_is_admin and feature.owner_column is not null and bound.owner is distinct from p_sub) then
    refusal := 'ORDER_NOT_FOUND'; return;
  end if;
  order_amount_fen := bound.amount_fen;
  if p_out_trade_no is not null then
    if feature.amount_column is not null and bound.amount_fen is distinct from p_price_fen then
      refusal := 'AMOUNT_MISMATCH'; return;
    end if;
    if exists (
      select from shouyin.payment p
      where p.binding_id = feature.binding_id and p.order_id = p_order_id and p.status = 'SUCCESSFUL')
    then refusal := 'ORDER_ALREADY_PAID'; return; end if;
  end if;

  signer := coalesce(nullif(bound.owner, ''), p_sub);
  begin
    insert into shouyin.kept_order (binding_id, order_id) values (feature.binding_id, p_order_id) on conflict do nothing;
    insert into shouyin.cycle_payment (binding_id, order_id, owner, payer, merchant_account_id, provider, method, scene, subject, price_fen,
      ceiling_fen, interval_days, external_agreement_no, first_deduction_on, return_url, created_by, idempotency_key,
      input_hash, correlation_id, expires_at, created_at, updated_at, check_at)
    values (feature.binding_id, p_order_id, bound.owner, signer, account.id, account.provider, p_method, p_scene, p_subject, p_price_fen,
      p_ceiling_fen, p_interval_days, p_external_agreement_no, p_first_deduction_on, p_return_url, p_sub, p_idempotency_key,
      p_input_hash, p_correlation_id, p_expires_at, p_now, p_now, p_check_at)
    returning * into cycle;
    if p_out_trade_no is not null then
      insert into shouyin.payment (binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, subject,
        out_trade_no, return_url, created_by, input_hash, correlation_id, expires_at, created_at, updated_at, check_at, cycle_payment_id)
      values (feature.binding_id, p_order_id, bound.owner, account.id, account.provider, p_method, p_price_fen, p_subject, p_out_trade_no,
        p_return_url, p_sub, p_input_hash, p_correlation_id, p_expires_at, p_now, p_now, p_check_at, cycle.id)
      returning id into first_id;
      update shouyin.cycle_payment c set first_payment_id = first_id where c.id = cycle.id returning c.* into cycle;
      insert into shouyin.event (kind, payment_id, cycle_payment_id, order_id, correlation_id, created_at)
      values ('payment.created', first_id, cycle.id, p_order_id, p_correlation_id, p_now);
    end if;
  exception when unique_violation then
    get stacked diagnostics hindered = constraint_name;
    -- Two that race meet here as well: the loser waits for the winner's commit and finds its row. Sent twice with one key, the
    -- second is hindered by the scene of the first, which is its own.
    select * into cycle from shouyin.cycle_payment c where c.created_by = p_sub and c.idempotency_key = p_idempotency_key
      and c.binding_id = feature.binding_id;
    if found then
      replayed := true;
      if cycle.input_hash <> p_input_hash then refusal := 'IDEMPOTENCY_CONFLICT'; end if;
      return;
    end if;
    if hindered <> 'cycle_payment_live' then raise; end if;
    select c.id into live_id from shouyin.cycle_payment c
    where c.merchant_account_id = account.id and c.payer = signer and c.scene = p_scene
      and c.status in ('PENDING', 'ACTIVE', 'SUSPENDED');
    cycle := null; refusal := 'SCENE_ALREADY_SIGNED'; return;
  end;
  insert into shouyin.event (kind, cycle_payment_id, order_id, correlation_id, created_at)
  values ('cycle.created', cycle.id, cycle.order_id, p_correlation_id, p_now);
end $$;

-- The order of a deduction: the original's row once more, of the same owner, at the deduction's price. Key, status, generated
-- columns and what a function fills in by default (times, numbers) are left to the table, and so are columns that must be unique.
create function shouyin.copy_order(p_binding_id smallint, p_order_id bigint, p_price_fen bigint) returns bigint
  language plpgsql as $$
declare
  feature shouyin.binding;
  names text;
  sources text;
  made bigint;
begin
  select * into strict feature from shouyin.binding b where b.binding_id = p_binding_id;
  select string_agg(format('%I', a.attname), ', ' order by a.attnum),
    string_agg(case when a.attname is distinct from feature.amount_column then format('o.%I', a.attname)
      when feature.amount_in_fen then '$2' else '$2::numeric / 100' end, ', ' order by a.attnum)
  into names, sources
  from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = feature.order_table and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
    and a.attidentity = '' and a.attname <> feature.key_column
    and case when a.attname in (feature.amount_column, feature.owner_column) then true
      when feature.cycle_order_columns is not null then a.attname = any(feature.cycle_order_columns)
      else a.attname is distinct from feature.status_column
        and (d.adbin is null or pg_get_expr(d.adbin, d.adrelid) !~* '\(|current_|localtime|session_user')
        and not exists (select from pg_index i where i.indrelid = a.attrelid and i.indisunique and a.attnum = any(i.indkey))
      end;
  if names is null then
    raise exception 'shouyin: % has no column that an order of a deduction could take over', feature.order_table_name
      using hint = 'Write async def on_deduction(result, connection) in the module of FLOWS; it returns the new order''s id.';
  end if;
  execute format('insert into %s (%s) select %s from %s o where o.%I = $1 returning %I', feature.order_table, names, sources,
    feature.order_table, feature.key_column, feature.key_column)
  into made using p_order_id, p_price_fen;
  return made;
end $$;

-- Opens an attempt to take the money of a deduction: its payment, for the order that was made for it. Called in the transaction
-- that made the order, or when an earlier attempt has failed. `refusal` is null when it was opened.
create function shouyin.open_attempt(
  p_deduction_id bigint, p_order_id bigint, p_now timestamptz, p_expires_at timestamptz,
  out refusal text, out order_amount_fen numeric, out payment_id bigint
) language plpgsql as $$
declare
  due shouyin.deduction;
  cycle shouyin.cycle_payment;
  bound record;
  priced boolean;
begin
  select * into strict due from shouyin.deduction d where d.id = p_deduction_id for no key update;
  select * into strict cycle from shouyin.cycle_payment c where c.id = due.cycle_payment_id;
  if due.status not in ('WAITING', 'CHARGING') or cycle.status <> 'ACTIVE' or cycle.ending then refusal := 'OVER'; return; end if;
  if due.payment_id is not null and due.payment_id is distinct from due.settled_payment_id then refusal := 'UNSETTLED'; return; end if;
  -- The table is that of the order it began with, which need not be the one that is bound now.
  select b.amount_column is not null into strict priced from shouyin.binding b where b.binding_id = cycle.binding_id;
  execute format('select o.id, o.owner, o.amount_fen::numeric as amount_fen,'
    || ' (select f.owner from shouyin.bound_order_%1$s f where f.id = $2) as payer'
    || ' from shouyin.bound_order_%1$s o where o.id = $1 for no key update', cycle.binding_id)
  into bound using p_order_id, cycle.order_id;
  if bound.id is null then refusal := 'ORDER_NOT_FOUND'; return; end if;
  if due.status = 'WAITING' and bound.owner is distinct from bound.payer then refusal := 'ORDER_OF_ANOTHER_OWNER'; return; end if;
  order_amount_fen := bound.amount_fen;
  if priced and bound.amount_fen is distinct from due.price_fen then refusal := 'AMOUNT_MISMATCH'; return; end if;
  if p_order_id = cycle.order_id or exists (
    select from shouyin.deduction d where d.binding_id = due.binding_id and d.order_id = p_order_id and d.id <> due.id)
  then refusal := 'ORDER_NOT_NEW'; return; end if;
  if exists (
    select from shouyin.payment p
    where p.binding_id = cycle.binding_id and p.order_id = p_order_id and p.status = 'SUCCESSFUL')
  then refusal := 'ORDER_ALREADY_PAID'; return; end if;
  insert into shouyin.kept_order (binding_id, order_id) values (cycle.binding_id, p_order_id) on conflict do nothing;
  insert into shouyin.payment (binding_id, order_id, owner, merchant_account_id, provider, method, amount_fen, subject, out_trade_no,
    created_by, input_hash, correlation_id, expires_at, created_at, updated_at, cycle_payment_id, deduction_id)
  values (cycle.binding_id, p_order_id, bound.owner, cycle.merchant_account_id, cycle.provider, cycle.method, due.price_fen, cycle.subject,
    due.number || to_char(due.attempts + 1, 'FM999000'), cycle.created_by, '', cycle.correlation_id, p_expires_at, p_now, p_now,
    cycle.id, due.id)
  returning id into payment_id;
  update shouyin.deduction d set status = 'CHARGING', order_id = p_order_id, payment_id = open_attempt.payment_id,
    attempts = d.attempts + 1, calls = 0, attempt_at = p_now, updated_at = p_now
  where d.id = due.id;
  insert into shouyin.event (kind, payment_id, cycle_payment_id, deduction_id, order_id, correlation_id, created_at)
  values ('payment.created', payment_id, cycle.id, due.id, p_order_id, cycle.correlation_id, p_now);
end $$;

-- As 0009 has it, with the template of deductions' orders.
create or replace function shouyin.set_binding_aside(
  p_now timestamptz, out plan text, out plan_expires_at timestamptz, out plan_warned_days smallint
) language plpgsql as $$
declare
  former shouyin.activation;
begin
  delete from shouyin.activation returning * into strict former;
  insert into shouyin.former_binding (binding_id, order_table, order_table_name, key_column, owner_column, amount_column,
    amount_in_fen, status_column, paid_status, failed_status, refunded_status, drop_guarded, activated_at, replaced_at,
    cycle_order_columns)
  values (former.binding_id, former.order_table, former.order_table_name, former.key_column, former.owner_column,
    former.amount_column, former.amount_in_fen, former.status_column, former.paid_status, former.failed_status,
    former.refunded_status, former.drop_guarded, former.activated_at, p_now, former.cycle_order_columns);
  execute format('drop trigger shouyin_announce_insert on %s', former.order_table);
  execute format('drop trigger shouyin_announce_update on %s', former.order_table);
  insert into shouyin.change (subject, row_id) values ('activation', former.binding_id);
  plan := former.plan;
  plan_expires_at := former.plan_expires_at;
  plan_warned_days := former.plan_warned_days;
end $$;

-- What everybody with a token may do at first, and again after payments were turned off.
create function shouyin.grant_defaults(p_now timestamptz) returns void language sql as $$
  insert into shouyin.permission (role, action, granted_by, granted_at)
  select '*', action, 'migration', p_now
  from unnest(array['payment.create', 'payment.close', 'payment.sync', 'cycle.start', 'cycle.cancel', 'cycle.pause']) as action
$$;

create or replace function shouyin.hold_payments() returns void language plpgsql as $$
declare
  bound regclass;
begin
  lock table shouyin.activation, shouyin.former_binding in access exclusive mode;
  for bound in select b.order_table from shouyin.binding b loop
    execute format('lock table %s in access exclusive mode', bound);
  end loop;
  lock table shouyin.cycle_payment, shouyin.payment, shouyin.refund, shouyin.deduction, shouyin.deduction_hold,
    shouyin.flow_run, shouyin.event, shouyin.difference, shouyin.notification, shouyin.merchant_account, shouyin.permission,
    shouyin.kept_order in access exclusive mode;
end $$;

create or replace function shouyin.clear_payments(p_now timestamptz) returns void language plpgsql as $$
declare
  money text;
begin
  insert into shouyin.change (subject, row_id, version) select 'merchant_account', id, version from shouyin.merchant_account;
  insert into shouyin.change (subject, row_id) values ('activation', 1);
  perform shouyin.unbind_order_table();
  foreach money in array array['payment', 'refund', 'cycle_payment', 'deduction'] loop
    execute format('alter table shouyin.%I disable trigger refuse_truncate', money);
  end loop;
  truncate shouyin.flow_run, shouyin.event, shouyin.difference, shouyin.notification, shouyin.refund, shouyin.payment,
    shouyin.cycle_payment, shouyin.deduction, shouyin.deduction_hold, shouyin.merchant_account;
  foreach money in array array['payment', 'refund', 'cycle_payment', 'deduction'] loop
    execute format('alter table shouyin.%I enable trigger refuse_truncate', money);
  end loop;
  delete from shouyin.permission;
  perform shouyin.grant_defaults(p_now);
end $$;
