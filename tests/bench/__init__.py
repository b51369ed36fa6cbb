"""Benchmarks: what one API process does on this machine, beside its database and the load. `python -m tests.bench`.

    create       createPayment, beside a bare handler that sends the same statements and makes one signature
    inbox        provider notifications: verified, stored, acknowledged
    latency      from a commit to the sockets that watch the row, few watchers and many
    memory       what an idle watcher holds
    statements   what the database is sent for one change, few watchers and many
    commits      commits a second with changes announced, and with the triggers switched off

Everything is real and a process of its own: PostgreSQL with fsync and default settings, as `make run` starts it, Redis,
the API, the bare handler, the writer. This process is the load. All on loopback; what was started is ended.
"""
