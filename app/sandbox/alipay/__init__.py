"""Alipay's v2 gateway: payment pages, order QR codes, query, close, refunds, agreements with their deductions, and
signed notifications.

    gateway.py    POST|GET /gateway.do: faults, dispatch, answers
    parameters.py the bytes of a call: charset, parameters, string to sign
    callers.py    who calls: app id, certificates, signature, timestamp, ISV token
    fields.py     the documented fields of each method and what they may hold
    methods.py    precreate, query, close, refund, refund query and opening a payment page
    orders.py     the trade that a call orders
    payers.py     who pays
    trades.py     the trades and their states
    refunds.py    the refunds of a trade and their states
    desk.py       what a payer does, how refunds settle, and the notifications that follow
    notices.py    signed notifications and return URLs
    pages.py      the payer's pages
    accounts.py   apps, keys and certificates
    app_links.py  what Alipay's app does with a deep link
    agreements.py agreements (周期扣款, 商家扣款) and their states; deductions.py, what becomes of a deduction;
                  agreement_fields.py, _methods.py, _desk.py, _notices.py, _pages.py as above; agreement_control.py
    signing.py    RSA2 and certificate serial numbers
    errors.py     refusals, unsigned (gateway) and signed (business)

Source of every rule: opendocs.alipay.com as read in 2026, for the v2 protocol. Where Alipay's documents leave a code
open, the one its gateway was seen to answer is used.
"""
