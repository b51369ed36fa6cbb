"""Every statement of the hot paths leans on an index when the tables are full: looked up in its generic plan."""

import re

from tests.fixtures.plans import plan_of
from tests.fixtures.shop import Shop

ROWS = 20_000
TABLES = "orders|payment|refund|notification|event|flow_run|difference|cycle_payment|deduction"

FULL = f"""
insert into orders (user_id, title, amount) select n % 1000, 'Tea', 12.30 from generate_series(1, {ROWS}) n;
insert into shouyin.payment (order_id, owner, merchant_account_id, provider, method, amount_fen, paid_amount_fen,
  subject, out_trade_no, status, created_by, idempotency_key, input_hash, expires_at, created_at, updated_at, check_at)
select n, (n % 1000)::text, 1, 'ALIPAY', 'ALIPAY_PAGE', 1230, case when n % 50 > 0 then 1230 end, 'Tea',
  'SY' || n + 100000,
  case when n % 50 > 0 then 'SUCCESSFUL' else 'PENDING' end, 'u', 'k' || n, 'x', now(), now(), now(),
  case when n % 50 = 0 then now() end
from generate_series(1, {ROWS}) n;
insert into shouyin.refund (payment_id, order_id, owner, merchant_account_id, amount_fen, out_refund_no, status,
  created_by, input_hash, created_at, updated_at, refunded_at, check_at)
select n, n, (n % 1000)::text, 1, 100, 'SR' || n + 100000, case when n % 500 > 0 then 'REFUNDED' else 'PENDING' end,
  'c' || n % 10, 'x', now() - n * interval '1 minute', now(), case when n % 500 > 0 then now() end,
  case when n % 500 = 0 then now() end
from generate_series(1, {ROWS}) n;
insert into shouyin.notification (provider, merchant_account_id, event_key, report, body, received_at, due_at,
  handled_count)
select 'ALIPAY', 1, 'e' || n, '{{}}', 'x', now() - n * interval '1 minute', case when n % 500 = 0 then now() end, 1
from generate_series(1, {ROWS}) n;
insert into shouyin.event (kind, payment_id, order_id, created_at, dispatched_at)
select 'payment.successful', n, n, now() - (20000 - n) * interval '1 minute', case when n < {ROWS} - 100 then now() end
from generate_series(1, {ROWS}) n;
insert into shouyin.flow_run (event_id, flow, trigger, status, due_at, created_at)
select n, 'order_status', 'payment', case when n % 500 = 0 then 'WAITING' else 'DONE' end,
  case when n % 500 = 0 then now() end, now() - (20000 - n) * interval '1 minute'
from generate_series(1, {ROWS}) n;
insert into shouyin.difference (merchant_account_id, out_trade_no, field, expected, reported, source, first_seen_at,
  last_seen_at)
select 1, 'n' || n, 'f', 'a', 'b', 'query', now(), now() from generate_series(1, {ROWS}) n;
insert into shouyin.cycle_payment (binding_id, order_id, payer, merchant_account_id, provider, method, scene, subject,
  price_fen, ceiling_fen, interval_days, external_agreement_no, agreement_no, status, first_deduction_on,
  next_deduction_on, notice_on, created_by, input_hash, expires_at, created_at, updated_at, check_at)
select 1, n, 'p' || n % 5000, 1, 'ALIPAY', 'ALIPAY_CYCLE', 's' || n, 'Club', 990, 990, 30, 'SA' || n + 100000,
  'A' || n, 'ACTIVE', current_date, current_date + n % 500, current_date + n % 500 - 3, 'u', 'x', now(), now(), now(),
  now() + n * interval '1 minute'
from generate_series(1, {ROWS}) n;
insert into shouyin.deduction (cycle_payment_id, merchant_account_id, due_on, sequence, price_fen, number, status,
  binding_id, order_id, attempt_at, created_at, updated_at)
select n, 1, current_date, 1, 990, 'SD' || n, case when n % 500 > 0 then 'PAID' else 'CHARGING' end, 1, n,
  case when n % 500 = 0 then now() end, now(), now()
from generate_series(1, {ROWS}) n;
update shouyin.payment set cycle_payment_id = id, deduction_id = id;
"""

HOT = [
    *(
        "payment.find",
        "payment.by_ids",
        "payment.by_orders",
        "payment.by_orders_of_any_table",
        "payment.lock_by_number",
        "payment.accept",
        "payment.fail",
    ),
    *("payment.close", "payment.succeed", "payment.claim_due", "payment.check_later", "payment.record_difference"),
    *("notification.receive", "notification.claim_due", "notification.lock", "notification.done"),
    *("flow.dispatch", "flow.claim_due", "flow.lock", "flow.done"),
    *("flow.mark_paid", "flow.mark_failed", "flow.fail", "flow.retry", "flow.find"),
    *("order.by_ids", "order.of_payments", "readiness.waiting"),
    *("refund.find", "refund.by_ids", "refund.by_payments", "refund.lock_payment", "refund.lock", "refund.request"),
    *("refund.accept", "refund.succeed", "refund.succeed_late", "refund.fail", "refund.doubt", "refund.claim_due"),
    *("refund.check_later", "refund.ask_now", "payment.refunded_elsewhere", "flow.mark_refunded"),
    *("cycle.find", "cycle.by_ids", "cycle.of_payer", "cycle.lock_by_numbers", "cycle.account_of_numbers"),
    *("cycle.has_other_live", "cycle.activate", "cycle.refresh", "cycle.finish", "cycle.stop", "cycle.suspend"),
    *("cycle.resume", "cycle.put_off", "cycle.announce", "cycle.claim_due", "cycle.check_later", "cycle.payments"),
    *("deduction.open_due", "deduction.claim_due", "deduction.of_cycle", "deduction.payments", "deduction.later"),
    *("deduction.lock_cycle", "deduction.lock", "deduction.paid_attempt", "deduction.paid", "deduction.retry"),
    *("deduction.failed", "deduction.skip", "deduction.await_payment", "deduction.copy_order", "test_clock.unsettled"),
    *("export.paid_payments", "export.made_refunds", "export.all_payments", "export.all_refunds"),
]


async def test_no_hot_statement_reads_a_whole_table(shop: Shop) -> None:
    await shop.connection.execute(FULL)
    await shop.connection.execute("vacuum analyze")
    whole = {}
    for name in HOT:
        plan = await plan_of(shop.connection, name)
        read = re.findall(rf"Seq Scan on ({TABLES})\b", plan)
        if read:
            whole[name] = plan.splitlines()
    assert whole == {}
