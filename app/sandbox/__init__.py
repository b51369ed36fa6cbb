"""The pretend payment providers: a separate ASGI app for laptops and tests.

Nothing here is imported by, or imports, the rest of `app`: the signers, verifiers and field rules are written a second
time on purpose. A signer that was wrong on both sides would otherwise pass every test.

    main.py         create_app, serve, run_in_process: the three ways in
    accounts.py     the merchant accounts and their keys, kept in the state directory
    control.py      /_control, the tests' handle on everything below
    clock.py        the movable clock all providers share
    deliveries.py   notifications: first send, retries on the clock, the log
    faults.py       what goes wrong on request
    calls.py        how often a provider was asked
    wire.py         connections that drop or stay silent
    markup.py       autoescaping templates
    pages.py        the index page, the frame and style of all pages
    alipay/         Alipay at its own path, /gateway.do

Trades, notifications, faults and the clock live in memory: a restart forgets them and keeps only the accounts.
"""
