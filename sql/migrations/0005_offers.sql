-- What each merchant account can be used for, and under which of the merchant's applications a payment runs.

-- { way to pay: [application ids, the default first] }; an empty list where the provider does not tell applications apart
alter table shouyin.merchant_account add column offers jsonb not null default '{}';
update shouyin.merchant_account set offers = '{"ALIPAY_PAGE": [], "ALIPAY_WAP": [], "ALIPAY_QR": []}'
where provider = 'ALIPAY';

-- The payer's openid belongs to one application; the provider may want the payer's address. Kept with the payment, so
-- that sending it once more after a lost answer sends the same.
alter table shouyin.payment add column app_id text, add column client_address text;

-- Who may do what: an action granted to a role. Administrators hold every action but refunds without a row; the role * is
-- everybody with a token. Scope and bounds are of refunds: whose payments, and how much, in fen; null is no bound.
create table shouyin.permission (
  role text not null,
  action text not null,
  scope text not null default 'OWN' check (scope in ('OWN', 'ALL')),
  largest_refund_fen bigint check (largest_refund_fen > 0),
  largest_refund_per_day_fen bigint check (largest_refund_per_day_fen > 0),
  granted_by text not null,
  granted_at timestamptz not null,
  primary key (role, action)
);
insert into shouyin.permission (role, action, granted_by, granted_at)
select '*', action, 'migration', now()
from unnest(array['payment.create', 'payment.close', 'payment.sync']) as action;

-- The plan's end is announced 14, 7 and 1 days before: the last of these that was.
alter table shouyin.activation add column plan_warned_days smallint;

drop function shouyin.open_payment(bigint, text, boolean, bigint, text, text, bigint, text, text, text, text, text, bytea,
  text, timestamptz, timestamptz, timestamptz, bigint, bigint);

-- Opens a payment: every check that needs the order, under the order's lock, and the row with its event, in one round
-- trip. plpgsql takes a new snapshot for each statement, so that what is read after the lock was granted is what the
-- previous holder committed. `refusal` is null when a row was opened or found; the application explains the codes.
create function shouyin.open_payment(
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
    select * into payment from shouyin.payment p where p.created_by = p_sub and p.idempotency_key = p_idempotency_key;
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
  if exists (select from shouyin.payment p where p.order_id = p_order_id and p.status = 'SUCCESSFUL') then
    refusal := 'ORDER_ALREADY_PAID'; return;
  end if;

  begin
    insert into shouyin.payment (order_id, owner, merchant_account_id, provider, method, amount_fen, subject, out_trade_no,
      openid, app_id, client_address, return_url, created_by, idempotency_key, input_hash, correlation_id, expires_at,
      created_at, updated_at, check_at)
    values (p_order_id, bound.owner, account.id, p_provider, p_method, asked_fen, p_subject,
      p_out_trade_no, p_openid, account.app_id, p_client_address, p_return_url, p_sub, p_idempotency_key, p_input_hash, p_correlation_id, p_expires_at, p_now,
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
