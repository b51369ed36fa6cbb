"""Alipay as one part of the sandbox."""

from starlette.routing import Route

from app.sandbox.alipay.accounts import PROVIDER, load_account
from app.sandbox.alipay.desk import Desk
from app.sandbox.alipay.gateway import Gateway
from app.sandbox.alipay.methods import Methods
from app.sandbox.alipay.pages import PayerPages
from app.sandbox.alipay.refunds import Refunds
from app.sandbox.alipay.trades import TradeBook
from app.sandbox.world import Ground, Part


def alipay_part(ground: Ground) -> Part:
    accounts = {record["app_id"]: load_account(record) for record in ground.records if record["provider"] == PROVIDER}
    book = TradeBook(ground.clock)
    refunds = Refunds(ground.clock)
    desk = Desk(book, refunds, ground.deliveries, ground.clock, ground.public_url)
    gateway = Gateway(
        accounts=accounts,
        methods=Methods(book, refunds, ground.clock, ground.public_url, follow_refund=desk.follow_refund),
        clock=ground.clock,
        faults=ground.faults,
        calls=ground.calls,
    )
    return Part(
        routes=[
            Route("/gateway.do", gateway.answer, methods=["GET", "POST"]),
            *PayerPages(desk, ground.clock).routes(),
        ],
        desks=(desk,),
    )
