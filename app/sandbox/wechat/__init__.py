"""WeChat: payments in all their forms at WeChat's own paths, and the open platform that logs people in.

    part.py          what it adds to the sandbox; platform.py: what the ways to pay share
    accounts.py      merchants, keys and certificates
    trades.py        the orders and their states, whichever way they were made
    refunds.py       their refunds
    desk.py          what a payer does, and the notices that follow
    v3*.py           APIv3, with signers.py (WeChat's keys, rotation, probes), signing.py and errors.py
    v2*.py           APIv2, with xml.py
    cloud*.py        the keyless calls from inside WeChat's cloud
    open_platform*.py  logins, app tokens, links
    pages.py         the payer's pages; bridge.py: the stand-in for WeChat's JavaScript bridge
    control.py       /_control/wechat for APIv3's keys, and for notices of refunds that tell something else

Each way to pay is a channel of the trade book: it reads and answers calls, writes notices and judges acknowledgements.
Source of every rule: pay.weixin.qq.com and developers.weixin.qq.com as read in 2026.
"""
