"""The pretend payment providers: a separate ASGI app for laptops and tests.

Nothing here is imported by, or imports, the rest of `app`: the signers, verifiers and field rules are written a second
time on purpose. A signer that was wrong on both sides would otherwise pass every test.

    main.py         create_app, serve, run_in_process: the three ways in; the list of parts
    world.py        what the parts share, and what each of them adds
    accounts.py     the merchant accounts and their keys, kept in the state directory
    control.py      /_control, the tests' handle on everything below
    options.py      how requests of /_control are read and refused
    desks.py        a provider's trades in words of no provider
    index.py        the page that shows what is going on
    clock.py        the movable clock all providers share
    deliveries.py   notifications: first send, retries and appointments on the clock, the log
    faults.py       what goes wrong on request
    calls.py        how often a provider was asked
    wire.py         connections that drop or stay silent
    markup.py       autoescaping templates
    pages.py        the frame and style of all pages
    cashier.py      what the payer's pages of all providers have in common
    alipay/         Alipay at its own path, /gateway.do
    wechat/         WeChat Pay and WeChat's open platform at their own paths

Trades, notifications, faults and the clock live in memory: a restart forgets them and keeps only the accounts.
"""
