"""Alipay as one part of the sandbox."""

from starlette.routing import Route

from app.sandbox.alipay.accounts import PROVIDER, load_account
from app.sandbox.alipay.agreement_control import AgreementControl
from app.sandbox.alipay.agreement_desk import AgreementDesk
from app.sandbox.alipay.agreement_methods import AgreementMethods
from app.sandbox.alipay.agreement_pages import AgreementPages
from app.sandbox.alipay.agreements import AgreementBook
from app.sandbox.alipay.app_links import AppLinks
from app.sandbox.alipay.deductions import Deductions
from app.sandbox.alipay.desk import Desk
from app.sandbox.alipay.gateway import Gateway
from app.sandbox.alipay.methods import Methods
from app.sandbox.alipay.pages import PayerPages
from app.sandbox.alipay.refunds import Refunds
from app.sandbox.alipay.trades import TradeBook
from app.sandbox.world import Ground, Part


def alipay_part(ground: Ground) -> Part:
    accounts = {record["app_id"]: load_account(record) for record in ground.records if record["provider"] == PROVIDER}
    clock, deliveries, public_url = ground.clock, ground.deliveries, ground.public_url
    book, agreements = TradeBook(clock), AgreementBook(clock)
    refunds, deductions = Refunds(clock), Deductions(book, agreements)
    agreement_desk = AgreementDesk(agreements, deliveries, clock, public_url)
    desk = Desk(book, refunds, deductions, agreement_desk, deliveries, clock, public_url)
    methods = Methods(book, refunds, clock, public_url, follow_refund=desk.follow_refund)
    agreement_methods = AgreementMethods(
        book, agreements, deductions, agreement_desk, clock, follow_deduction=desk.follow_deduction
    )
    agreement_pages = AgreementPages(agreement_desk, clock)
    gateway = Gateway(
        accounts=accounts,
        pages={**methods.page, **agreement_methods.page},
        executes={**methods.execute, **agreement_methods.execute},
        clock=clock,
        faults=ground.faults,
        calls=ground.calls,
    )
    return Part(
        routes=[
            Route("/gateway.do", gateway.answer, methods=["GET", "POST"]),
            *PayerPages(desk, clock).routes(),
            *agreement_pages.routes(),
            *AppLinks(public_url).routes(),
            *AgreementControl(agreement_desk, deductions, accounts).routes(),
        ],
        desks=(desk,),
        index_sections=(agreement_pages.index_section,),
    )
