"""What the triggers on payments announce: each row whose version rose, once, however many one statement changed."""

from tests.fixtures.shop import Shop

_PAYMENTS = """
insert into shouyin.payment (order_id, owner, merchant_account_id, provider, method, amount_fen, subject, out_trade_no,
  status, created_by, input_hash, expires_at, created_at, updated_at)
select $1, '7', a.id, 'ALIPAY', 'ALIPAY_PAGE', 1230, 'Tea', 'MANY' || lpad(n::text, 8, '0'), 'PENDING', '7', ''::bytea,
  now() + interval '1 day', now(), now()
from shouyin.merchant_account a, generate_series(1, 3000) n
"""


async def test_every_row_of_one_statement_is_announced_once_with_its_version(shop: Shop) -> None:
    order_id = await shop.order()
    await shop.connection.execute(_PAYMENTS, order_id)
    inserted = await shop.connection.fetch(
        "delete from shouyin.change where subject = 'payment' returning row_id, version"
    )
    assert len({row["row_id"] for row in inserted}) == len(inserted) == 3000
    assert {row["version"] for row in inserted} == {1}
    await shop.connection.execute("update shouyin.payment set transaction_id = 'T' || id")
    updated = await shop.connection.fetch(
        "delete from shouyin.change where subject = 'payment' returning row_id, version, order_id, owner"
    )
    assert {row["row_id"] for row in updated} == {row["row_id"] for row in inserted}
    assert {tuple(row)[1:] for row in updated} == {(2, order_id, "7")}
    assert len(updated) == 3000


async def test_what_no_watcher_can_see_is_not_announced(shop: Shop) -> None:
    await shop.connection.execute(_PAYMENTS, await shop.order())
    await shop.connection.execute("delete from shouyin.change")
    await shop.connection.execute("update shouyin.payment set check_at = now(), check_attempts = check_attempts + 1")
    assert await shop.count("change") == 0
    assert await shop.connection.fetchval("select count(*) from shouyin.payment where version = 1") == 3000
