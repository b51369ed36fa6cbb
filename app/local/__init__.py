"""What `make run` and the tests stand on: embedded PostgreSQL and Redis, their state directory, and the supervisor.

Nothing here is part of a production deployment: `shouyin serve` and `shouyin worker` never import it.
"""


class LocalError(Exception):
    """This machine does not let the local stack run. The message is one line that says what to do about it."""
