"""The embedded Redis: a doorbell behind a password, with nothing on disk."""

from pathlib import Path

import pytest
from redis.asyncio import Redis as Client
from redis.exceptions import AuthenticationError

from app.local.redis import Redis
from tests.fixtures.servers import OwnRedis


async def test_it_answers_whoever_has_the_password(redis_server: Redis) -> None:
    async with Client.from_url(redis_server.url) as client:
        assert await client.ping() is True
    async with Client.from_url(f"redis://127.0.0.1:{redis_server.port}/0") as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.get("anything")


def test_the_password_stands_in_no_list_of_processes(redis_server: Redis) -> None:
    for path in (Path(f"/proc/{redis_server.process.pid}") / name for name in ("cmdline", "environ")):
        assert redis_server.password.encode() not in path.read_bytes()


async def test_a_restarted_one_is_empty_and_at_the_same_address(own_redis: OwnRedis) -> None:
    url = own_redis.url
    async with Client.from_url(url) as client:
        await client.set("ring", "1")
    own_redis.restart()
    assert own_redis.url == url
    async with Client.from_url(url) as client:
        assert await client.dbsize() == 0
