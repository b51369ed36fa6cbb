-- Refunds. An amount is reserved on the payment before the provider hears of it, and the database refuses to reserve or give
-- back more than was paid, whatever asks for it.

alter table shouyin.payment
  add column reserved_refund_fen bigint not null default 0 check (reserved_refund_fen >= 0),
  add check (refunded_amount_fen + reserved_refund_fen <= coalesce(paid_amount_fen, 0));

create table shouyin.refund (
  id bigint generated always as identity primary key,
  payment_id bigint not null references shouyin.payment,
  order_id bigint not null,
  owner text,
  merchant_account_id bigint not null references shouyin.merchant_account,
  amount_fen bigint not null check (amount_fen > 0),
  out_refund_no text not null unique check (char_length(out_refund_no) between 6 and 32),
  provider_refund_id text,
  status text not null default 'CREATED' check (status in ('CREATED', 'PENDING', 'REFUNDED', 'FAILED')),
  reason text,
  -- why it failed; or, while pending, what stands in its way and needs a person
  failure jsonb,
  created_by text not null,
  idempotency_key text,
  input_hash bytea not null,
  correlation_id text,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  refunded_at timestamptz,
  check_at timestamptz,
  check_attempts integer not null default 0,
  version integer not null default 1
);
create unique index refund_idempotency on shouyin.refund (created_by, idempotency_key) where idempotency_key is not null;
create index refund_by_payment on shouyin.refund (payment_id, id);
create index refund_to_check on shouyin.refund (check_at) where check_at is not null;
-- what somebody gave back today
create index refund_by_creator on shouyin.refund (created_by, created_at);

alter table shouyin.event add column refund_id bigint references shouyin.refund;

drop trigger raise_version on shouyin.payment;
create trigger raise_version before update on shouyin.payment for each row
  when ((old.status, old.action, old.failure, old.paid_amount_fen, old.refunded_amount_fen, old.reserved_refund_fen,
         old.transaction_id, old.expires_at, old.late)
    is distinct from (new.status, new.action, new.failure, new.paid_amount_fen, new.refunded_amount_fen,
         new.reserved_refund_fen, new.transaction_id, new.expires_at, new.late))
  execute function shouyin.raise_version();
create trigger raise_version before update on shouyin.refund for each row
  when ((old.status, old.failure, old.provider_refund_id) is distinct from (new.status, new.failure, new.provider_refund_id))
  execute function shouyin.raise_version();

-- A refund's change is announced with its payment where a payment's is with its order.
create function shouyin.announce_refund() returns trigger language plpgsql as $$
begin
  insert into shouyin.change (subject, row_id, version, order_id, owner)
  values ('refund', new.id, new.version, new.payment_id, new.owner);
  return null;
end $$;
create trigger announce_insert after insert on shouyin.refund
  for each row execute function shouyin.announce_refund();
create trigger announce_update after update on shouyin.refund
  for each row when (old.version < new.version) execute function shouyin.announce_refund();
create trigger refuse_truncate before truncate on shouyin.refund
  for each statement execute function shouyin.refuse_truncate();

-- Opens a refund: who may, whether the payment has it, and the reserve, under the payment's lock and in one round trip.
-- `refusal` is null when a row was opened or found; the application explains the codes.
create function shouyin.open_refund(
  p_payment_id bigint, p_sub text, p_is_admin boolean, p_roles text[], p_amount_fen bigint, p_out_refund_no text,
  p_reason text, p_idempotency_key text, p_input_hash bytea, p_correlation_id text, p_now timestamptz,
  p_check_at timestamptz, p_oldest timestamptz, p_day_begins timestamptz, p_address text,
  out refusal text, out refundable_fen bigint, out bound_fen bigint, out replayed boolean, out refund shouyin.refund
) language plpgsql as $$
declare
  paid shouyin.payment;
  mine boolean;
  held record;
  feature shouyin.activation;
begin
  replayed := false;
  select * into paid from shouyin.payment p where p.id = p_payment_id for no key update;
  mine := paid.owner is null or paid.owner = p_sub;
  -- Only grants that reach this payment count, and each with its own bounds: a day's is that of those that allow the amount.
  select count(*) as grants,
    case when bool_or(g.largest_refund_fen is null) then null else max(g.largest_refund_fen) end as largest,
    case when bool_or(g.largest_refund_per_day_fen is null) filter (where coalesce(g.largest_refund_fen >= p_amount_fen, true))
      then null
      else max(g.largest_refund_per_day_fen) filter (where coalesce(g.largest_refund_fen >= p_amount_fen, true)) end as daily
  into held
  from shouyin.permission g
  where g.action = 'payment.refund' and g.role = any(p_roles) and (g.scope = 'ALL' or mine);
  -- As everywhere: what is somebody else's is not there. An empty owner is nobody's.
  if paid.id is null or not (p_is_admin or mine or held.grants > 0) then refusal := 'NOT_FOUND'; return; end if;
  if held.grants = 0 then refusal := 'FORBIDDEN'; return; end if;
  if p_idempotency_key is not null then
    select * into refund from shouyin.refund r where r.created_by = p_sub and r.idempotency_key = p_idempotency_key;
    if found then
      replayed := true;
      if refund.input_hash <> p_input_hash then refusal := 'IDEMPOTENCY_CONFLICT'; end if;
      return;
    end if;
  end if;
  select * into feature from shouyin.activation;
  if not found then refusal := 'PAYMENTS_NOT_ACTIVE'; return; end if;
  if feature.plan_expires_at <= p_now then refusal := 'PLAN_EXPIRED'; return; end if;

  if paid.status <> 'SUCCESSFUL' then refusal := 'NOT_PAID'; return; end if;
  if paid.refunded_amount_fen = paid.paid_amount_fen then refusal := 'ALL_REFUNDED'; return; end if;
  if paid.paid_at < p_oldest then refusal := 'TOO_OLD'; return; end if;
  refundable_fen := paid.paid_amount_fen - paid.refunded_amount_fen - paid.reserved_refund_fen;
  if p_amount_fen > refundable_fen then refusal := 'REFUND_EXCEEDS_PAYMENT'; return; end if;
  if p_amount_fen > held.largest then bound_fen := held.largest; refusal := 'ABOVE_LARGEST'; return; end if;
  if held.daily is not null then
    -- One caller's refunds of different payments take turns, so that their sum is what it is.
    perform pg_advisory_xact_lock(hashtextextended('shouyin.refunds:' || p_sub, 0));
    if p_amount_fen > held.daily - (
      select coalesce(sum(r.amount_fen), 0) from shouyin.refund r
      where r.created_by = p_sub and r.created_at >= p_day_begins and r.status <> 'FAILED')
    then bound_fen := held.daily; refusal := 'ABOVE_DAILY'; return; end if;
  end if;

  update shouyin.payment p set reserved_refund_fen = p.reserved_refund_fen + p_amount_fen, updated_at = p_now
  where p.id = paid.id;
  begin
    insert into shouyin.refund (payment_id, order_id, owner, merchant_account_id, amount_fen, out_refund_no, reason,
      created_by, idempotency_key, input_hash, correlation_id, created_at, updated_at, check_at)
    values (paid.id, paid.order_id, paid.owner, paid.merchant_account_id, p_amount_fen, p_out_refund_no, p_reason, p_sub,
      p_idempotency_key, p_input_hash, p_correlation_id, p_now, p_now, p_check_at)
    returning * into refund;
  exception when unique_violation then
    -- Two at once with one key for two payments: the loser reserves nothing and finds the winner's row.
    update shouyin.payment p set reserved_refund_fen = p.reserved_refund_fen - p_amount_fen where p.id = paid.id;
    select * into strict refund from shouyin.refund r where r.created_by = p_sub and r.idempotency_key = p_idempotency_key;
    replayed := true;
    if refund.input_hash <> p_input_hash then refusal := 'IDEMPOTENCY_CONFLICT'; end if;
    return;
  end;
  insert into shouyin.event (kind, payment_id, refund_id, order_id, correlation_id, created_at)
  values ('refund.created', paid.id, refund.id, paid.order_id, p_correlation_id, p_now);
  insert into shouyin.audit (at, actor, action, subject, details, address, correlation_id)
  values (p_now, p_sub, 'payment.refund', 'payment:' || paid.id,
    jsonb_build_object('refund_id', refund.id, 'amount_fen', p_amount_fen), p_address, p_correlation_id);
end $$;
