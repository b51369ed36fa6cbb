-- The foundation: the bound order table, merchant accounts, payments and everything that carries a payment from the
-- click to its final result. All of it lives in the schema "shouyin", so that it can stand beside any application's
-- own tables. Amounts are fen (bigint); instants are timestamptz.

create schema if not exists shouyin;

-- Which table holds the merchant's orders, and under which plan payments run. One row, or none while payments are off.
create table shouyin.activation (
  id smallint primary key default 1 check (id = 1),
  order_table regclass not null,
  order_table_name text not null,
  key_column text not null,
  owner_column text,
  amount_column text,
  amount_in_fen boolean not null default false,
  status_column text,
  paid_status text,
  failed_status text,
  refunded_status text,
  plan text,
  plan_expires_at timestamptz,
  drop_guarded boolean not null,
  activated_at timestamptz not null
);

create table shouyin.merchant_account (
  id bigint generated always as identity primary key,
  provider text not null,
  mode text not null,
  name text not null,
  settings jsonb not null,
  -- key id, nonce and AES-256-GCM ciphertext of the credentials; the row id is the associated data
  sealed bytea,
  enabled boolean not null default true,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  version integer not null default 1
);
create index merchant_account_by_provider on shouyin.merchant_account (provider, id) where enabled;

create table shouyin.payment (
  id bigint generated always as identity primary key,
  order_id bigint not null,
  owner text,
  merchant_account_id bigint not null references shouyin.merchant_account,
  provider text not null,
  method text not null,
  amount_fen bigint not null check (amount_fen > 0),
  currency text not null default 'CNY' check (currency = 'CNY'),
  paid_amount_fen bigint check (paid_amount_fen > 0),
  refunded_amount_fen bigint not null default 0,
  subject text not null,
  out_trade_no text not null unique check (char_length(out_trade_no) between 6 and 32),
  transaction_id text,
  payer_id text,
  status text not null default 'CREATED'
    check (status in ('CREATED', 'PENDING', 'SUCCESSFUL', 'FAILED', 'CLOSED')),
  failure jsonb,
  action jsonb,
  openid text,
  return_url text,
  created_by text not null,
  idempotency_key text,
  input_hash bytea not null,
  correlation_id text,
  expires_at timestamptz not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  paid_at timestamptz,
  late boolean not null default false,
  -- When the provider is asked next; null once there is nothing left to ask. `check_attempts` counts questions in a row
  -- that got no usable answer.
  check_at timestamptz,
  check_attempts integer not null default 0,
  version integer not null default 1,
  check (refunded_amount_fen between 0 and coalesce(paid_amount_fen, 0)),
  check ((status = 'SUCCESSFUL') = (paid_amount_fen is not null))
);
-- One caller's key names one payment. The same key from another caller is another key.
create unique index payment_idempotency on shouyin.payment (created_by, idempotency_key) where idempotency_key is not null;
create index payment_by_order on shouyin.payment (order_id, id);
create index payment_by_account on shouyin.payment (merchant_account_id);
create index payment_to_check on shouyin.payment (check_at) where check_at is not null;
create index payment_paid_by_order on shouyin.payment (order_id) where status = 'SUCCESSFUL';

-- The inbox. One row per provider event, committed before the provider is answered. A repeat raises received_count;
-- the worker handles until handled_count has caught up, so that each repeat still reaches the flow (Z10).
create table shouyin.notification (
  id bigint generated always as identity primary key,
  provider text not null,
  merchant_account_id bigint not null references shouyin.merchant_account,
  event_key text not null,
  report jsonb not null,
  body bytea not null,
  correlation_id text,
  received_at timestamptz not null,
  received_count integer not null default 1,
  handled_count integer not null default 0,
  attempts integer not null default 0,
  -- null once handled; '-infinity' for at once, whatever the clocks of the processes say
  due_at timestamptz,
  error text,
  unique (merchant_account_id, event_key)
);
create index notification_by_age on shouyin.notification using brin (received_at);
create index notification_due on shouyin.notification (due_at, id) where due_at is not null;

-- The outbox: what happened, written in the transaction that made it happen.
create table shouyin.event (
  id bigint generated always as identity primary key,
  kind text not null,
  payment_id bigint references shouyin.payment,
  order_id bigint,
  details jsonb not null default '{}',
  correlation_id text,
  created_at timestamptz not null,
  dispatched_at timestamptz
);
create index event_undispatched on shouyin.event (id) where dispatched_at is null;
create index event_by_age on shouyin.event using brin (created_at);
create index event_by_payment on shouyin.event (payment_id, id);

create table shouyin.flow_run (
  id bigint generated always as identity primary key,
  event_id bigint not null references shouyin.event,
  flow text not null,
  trigger text not null,
  status text not null default 'WAITING' check (status in ('WAITING', 'DONE', 'FAILED')),
  attempts integer not null default 0,
  -- null once done, or given up and left to an operator; '-infinity' for at once
  due_at timestamptz,
  error text,
  created_at timestamptz not null,
  finished_at timestamptz,
  unique (event_id, flow)
);
create index flow_run_by_age on shouyin.flow_run using brin (created_at);
create index flow_run_due on shouyin.flow_run (due_at, id) where due_at is not null;
create index flow_run_failed on shouyin.flow_run (id) where status = 'FAILED';

-- What a provider said that does not fit our row. One row per distinct disagreement; a repeat raises `seen`.
create table shouyin.difference (
  id bigint generated always as identity primary key,
  merchant_account_id bigint not null references shouyin.merchant_account,
  payment_id bigint references shouyin.payment,
  out_trade_no text not null,
  field text not null,
  expected text not null,
  reported text not null,
  source text not null,
  seen integer not null default 1,
  first_seen_at timestamptz not null,
  last_seen_at timestamptz not null,
  unique (merchant_account_id, out_trade_no, field, reported)
);

create table shouyin.audit (
  id bigint generated always as identity primary key,
  at timestamptz not null,
  actor text not null,
  action text not null,
  subject text not null,
  details jsonb not null default '{}',
  address text,
  correlation_id text
);

-- Keys of rows that changed, waiting for the relay. Unlogged: after a crash of the server every listener reconnects and
-- reads all it watches again, so that losing these rows loses nothing, and keeping them would double the WAL of a change.
create unlogged table shouyin.change (
  id bigint generated always as identity primary key,
  subject text not null,
  row_id bigint not null,
  version integer,
  order_id bigint,
  owner text
);

create function shouyin.raise_version() returns trigger language plpgsql as $$
begin
  new.version := old.version + 1;
  return new;
end $$;

-- A version is what a watcher can see; taking a row for a check is not.
create trigger raise_version before update on shouyin.payment for each row
  when ((old.status, old.action, old.failure, old.paid_amount_fen, old.refunded_amount_fen, old.transaction_id,
         old.expires_at, old.late)
    is distinct from (new.status, new.action, new.failure, new.paid_amount_fen, new.refunded_amount_fen,
         new.transaction_id, new.expires_at, new.late))
  execute function shouyin.raise_version();
create trigger raise_version before update on shouyin.merchant_account
  for each row execute function shouyin.raise_version();

-- Statement triggers with transition tables: ten thousand rows changed by one statement cost one insert.
create function shouyin.announce_new_payments() returns trigger language plpgsql as $$
begin
  insert into shouyin.change (subject, row_id, version, order_id, owner)
  select 'payment', id, version, order_id, owner from changed;
  return null;
end $$;
create function shouyin.announce_payments() returns trigger language plpgsql as $$
begin
  insert into shouyin.change (subject, row_id, version, order_id, owner)
  select 'payment', c.id, c.version, c.order_id, c.owner from changed c join before b on b.id = c.id and b.version < c.version;
  return null;
end $$;
create trigger announce_insert after insert on shouyin.payment
  referencing new table as changed for each statement execute function shouyin.announce_new_payments();
create trigger announce_update after update on shouyin.payment
  referencing old table as before new table as changed for each statement execute function shouyin.announce_payments();

create function shouyin.announce_merchant_accounts() returns trigger language plpgsql as $$
begin
  insert into shouyin.change (subject, row_id, version) select 'merchant_account', id, version from changed;
  return null;
end $$;
create trigger announce_insert after insert on shouyin.merchant_account
  referencing new table as changed for each statement execute function shouyin.announce_merchant_accounts();
create trigger announce_update after update on shouyin.merchant_account
  referencing new table as changed for each statement execute function shouyin.announce_merchant_accounts();

-- Money rows leave only through the deactivation that first exports them.
create function shouyin.refuse_truncate() returns trigger language plpgsql as $$
begin
  raise exception 'shouyin: % holds payments or the orders they belong to and cannot be truncated', tg_table_name
    using hint = 'Turn payments off first (deactivatePayments).';
end $$;
create trigger refuse_truncate before truncate on shouyin.payment
  for each statement execute function shouyin.refuse_truncate();
