"""Settings: a wrong or missing one is one line that names it."""

import base64

import pytest

from app.config import Config, ConfigError, Secret, load_config, parse_master_keys

KEY = base64.b64encode(bytes(32)).decode()
GOOD = {
    "DATABASE_URL": "postgresql://localhost/shop",
    "REDIS_URL": "redis://localhost",
    "PUBLIC_URL": "https://pay.shop.example/",
    "MASTER_KEYS": f"k1:{KEY}",
    "JWT_SECRET": "x" * 32,
}


def test_the_defaults_are_those_of_production() -> None:
    config = load_config(GOOD)
    assert (config.graphiql, config.introspection, config.demo, config.sandbox_url) == (False, False, False, None)
    assert not config.test_clock
    assert (config.host, config.port, config.public_url) == ("127.0.0.1", 8000, "https://pay.shop.example")
    assert (config.minimum_amount_fen, config.maximum_amount_fen) == (2, 10_000_000_000)
    assert config.listen_database_url == config.database_url


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL: missing"),
        ({"DATABASE_URL": "mysql://x"}, "DATABASE_URL: must start with postgresql://"),
        ({"REDIS_URL": "localhost"}, "REDIS_URL: must start with redis://"),
        ({"PUBLIC_URL": "pay.example"}, "PUBLIC_URL: must start with http:// or https://"),
        ({"MASTER_KEYS": ""}, "MASTER_KEYS: missing"),
        ({"MASTER_KEYS": "abc"}, "MASTER_KEYS: write id:key pairs"),
        ({"MASTER_KEYS": "k1:%%%"}, "MASTER_KEYS: key k1 is not base64"),
        ({"MASTER_KEYS": "k1:AAAA"}, "MASTER_KEYS: key k1 has 3 bytes, not 32"),
        ({"MASTER_KEYS": f"k1:{KEY},k1:{KEY}"}, "MASTER_KEYS: write id:key pairs with distinct ids"),
        ({"JWT_SECRET": ""}, "JWT_SECRET: missing"),
        ({"JWT_SECRET": "short"}, "JWT_SECRET: shorter than 32 bytes"),
        ({"PORT": "80x"}, "PORT: '80x' is not a whole number from 1 to 65535"),
        ({"PORT": "70000"}, "PORT: '70000' is not a whole number"),
        ({"GRAPHIQL": "maybe"}, "GRAPHIQL: 'maybe' is neither on nor off"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL: 'loud' is not one of info, debug, warning, error"),
        ({"TEST_CLOCK": "on"}, "TEST_CLOCK: needs SANDBOX_URL"),
        ({"DEDUCT_AT": "9:00"}, "DEDUCT_AT: '9:00' is not a time of the day"),
        ({"DEDUCT_AT": "22:01"}, "DEDUCT_AT: 22:00 is the latest"),
        ({"DEDUCTION_MISSED_DAYS": "skip"}, "DEDUCTION_MISSED_DAYS: 'skip' is neither a number of days nor"),
        ({"MINIMUM_AMOUNT": "0.001"}, "MINIMUM_AMOUNT: '0.001' is not an amount"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(changes: dict[str, str], line: str) -> None:
    with pytest.raises(ConfigError) as stopped:
        load_config(GOOD | changes)
    assert str(stopped.value).startswith(line)
    assert "\n" not in str(stopped.value)


def test_master_keys_keep_their_order() -> None:
    assert list(parse_master_keys(f"new:{KEY},old:{KEY}")) == ["new", "old"]


def test_a_secret_does_not_show_itself() -> None:
    config: Config = load_config(GOOD)
    assert "xxxx" not in repr(config)
    assert f"{Secret('hidden')} {Secret('hidden')!r}" == "Secret(…) Secret(…)"
