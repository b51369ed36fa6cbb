"""WeChat's keys: fetched when needed, chosen by their serial, and never so that a stranger can make us flood WeChat."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.providers.contract import (
    Accepted,
    NotificationRefused,
    NotReached,
    Rejected,
    Unknown,
)
from tests.providers.scripted import Received, answering, hang
from tests.providers.wechat.v3.bench import CERTIFICATES, Bench, benching, raw
from tests.providers.wechat.v3.keyring import (
    MCHID,
    NOW,
    PUBLIC_KEY_ID,
    by_certificate,
    certificate,
    certificates_answer,
    encrypted,
    notice,
    pem,
    public_text,
    serial,
    stamped,
)

PREPAID = {"prepay_id": "wx201410272009395522657a690389285100"}
MOVING = {"public_key_id": PUBLIC_KEY_ID, "public_key": public_text("wechat")}


async def _notified(bench: Bench, **how: Any) -> str | None:
    """Reads a genuine notification signed this way; the reason when it is refused."""
    body = notice()
    try:
        await bench.read(stamped(body, at=bench.clock.now(), **how), body)
    except NotificationRefused as exc:
        return exc.reason
    return None


@pytest.fixture
async def certified(client: httpx.AsyncClient) -> Any:
    """A merchant with certificates alone; WeChat publishes and uses certificate "one"."""
    async with benching(client, "v3_certificate") as made:
        yield made


async def test_certificates_are_fetched_once_and_kept(certified: Bench) -> None:
    certified.wechat.says(PREPAID)
    for _ in range(3):
        assert isinstance(await certified.create(), Accepted)
        assert await _notified(certified, **by_certificate("one")) is None
    assert certified.wechat.downloads == 1
    [download] = [one for one in certified.wechat.server.received if one.target == CERTIFICATES]
    assert download.body == b""
    assert "authorization" in download.headers
    assert f'mchid="{MCHID}"' in download.headers["authorization"]


async def test_a_renewal_in_mid_traffic_costs_no_notification(certified: Bench) -> None:
    assert await _notified(certified, **by_certificate("one")) is None
    certified.wechat.certificates = ("one", "two")
    outcomes = await asyncio.gather(
        *(_notified(certified, **by_certificate(name)) for name in ("one", "two") for _ in range(20))
    )
    assert outcomes == [None] * 40
    assert certified.wechat.downloads == 2
    # The old one is gone once WeChat no longer publishes it, and a third comes.
    certified.wechat.certificates, certified.wechat.signed = ("two", "three"), by_certificate("two")
    assert await _notified(certified, **by_certificate("three")) is None
    assert await _notified(certified, **by_certificate("two")) is None
    assert certified.wechat.downloads == 3
    assert await _notified(certified, **by_certificate("one")) == "signature"


async def test_a_move_to_the_public_key_in_mid_traffic_costs_no_notification(client: httpx.AsyncClient) -> None:
    async with benching(client, "v3_certificate", **MOVING) as bench:
        for _ in range(3):
            assert await _notified(bench, **by_certificate("one")) is None
            assert await _notified(bench) is None
        bench.wechat.signed = {}
        bench.wechat.says(PREPAID)
        assert isinstance(await bench.create(), Accepted)
        bench.wechat.signed = by_certificate("one")
        bench.wechat.says(PREPAID)
        assert isinstance(await bench.create(), Accepted)
        assert bench.wechat.downloads == 1
    # Moved, and WeChat still signs some with the certificate.
    async with benching(client, "v3") as bench:
        bench.wechat.certificates, bench.wechat.signed = ("one",), by_certificate("one")
        assert await _notified(bench, **by_certificate("one")) is None
        assert await _notified(bench) is None
        assert bench.wechat.downloads == 1


async def test_certificates_stay_good_when_wechat_publishes_none_any_more(client: httpx.AsyncClient) -> None:
    """The end of the move: what WeChat signed with them is still on its way."""
    async with benching(client, "v3_certificate", **MOVING) as bench:
        assert await _notified(bench, **by_certificate("one")) is None
        bench.wechat.certificates = ()
        bench.clock.advance(timedelta(hours=12))
        for _ in range(2):
            assert await _notified(bench, **by_certificate("one")) is None
        assert bench.wechat.downloads == 2


async def test_a_merchant_without_certificates_needs_none(bench: Bench) -> None:
    assert await _notified(bench) is None
    assert bench.wechat.downloads == 0
    assert await _notified(bench, **by_certificate("one")) == "signature"
    assert bench.wechat.downloads == 1
    assert await _notified(bench) is None


async def test_forged_serials_cost_one_download_in_five_seconds(certified: Bench) -> None:
    forged = [f"5A{number:038X}" for number in range(50)]
    outcomes = await asyncio.gather(*(_notified(certified, by="stranger", named=one) for one in forged))
    assert set(outcomes) == {"signature"}
    assert certified.wechat.downloads == 1
    # What is genuine goes through all the while.
    assert await _notified(certified, **by_certificate("one")) is None
    certified.clock.advance(timedelta(seconds=4))
    assert await _notified(certified, by="stranger", named=forged[0]) == "signature"
    assert certified.wechat.downloads == 1
    certified.clock.advance(timedelta(seconds=1))
    for one in forged:
        assert await _notified(certified, by="stranger", named=one) == "signature"
    assert certified.wechat.downloads == 2


@pytest.mark.parametrize("named", ["PUB_KEY_ID_9", "PUB_KEY_ID_" + "1" * 60, "not_hexadecimal", "5a" * 20, "F" * 65])
async def test_what_can_be_no_certificate_is_never_asked_for(certified: Bench, named: str) -> None:
    assert await _notified(certified, named=named) == "signature"
    assert certified.wechat.downloads == 0


async def test_the_public_key_is_found_by_its_exact_id(bench: Bench) -> None:
    for named in (PUBLIC_KEY_ID.lower(), PUBLIC_KEY_ID + "0", PUBLIC_KEY_ID[:-1]):
        assert await _notified(bench, named=named) == "signature"


async def test_keys_that_cannot_be_fetched_now_let_wechat_repeat(certified: Bench) -> None:
    certified.wechat.certificates = answering(b"", status=503)
    for _ in range(3):
        assert await _notified(certified, **by_certificate("one")) == "keys_unavailable"
    assert certified.wechat.downloads == 1
    certified.wechat.certificates = ("one",)
    certified.clock.advance(timedelta(seconds=5))
    assert await _notified(certified, **by_certificate("one")) is None


async def test_no_order_is_sent_whose_answer_could_not_be_verified(certified: Bench) -> None:
    certified.wechat.certificates = answering(b"", status=503)
    outcome = await certified.create()
    assert outcome == NotReached("platform certificates: HTTP 503")
    assert isinstance(await certified.query(), NotReached)
    assert certified.wechat.orders == []
    assert certified.wechat.downloads == 1


async def test_a_wrong_merchant_key_is_explained_at_the_first_order(certified: Bench) -> None:
    certified.wechat.certificates = answering(
        json.dumps({"code": "SIGN_ERROR", "message": "签名错误"}).encode(), status=401
    )
    outcome = await certified.create()
    assert isinstance(outcome, Rejected)
    assert outcome.code == "SIGN_ERROR"
    assert "serial_no" in outcome.explanation
    assert certified.wechat.orders == []


async def test_a_wrong_apiv3_key_is_explained_at_the_first_order(certified: Bench) -> None:
    certified.wechat.certificates = certificates_answer("one", apiv3_key="x" * 32)
    outcome = await certified.create()
    assert isinstance(outcome, Rejected)
    assert outcome.code == "APIV3_KEY_WRONG"
    assert "apiv3_key" in outcome.explanation
    assert certified.wechat.orders == []


async def test_a_merchant_who_has_only_the_public_key_is_told_so(certified: Bench) -> None:
    certified.wechat.certificates = ()
    outcome = await certified.create()
    assert isinstance(outcome, Rejected)
    assert outcome.code == "RESOURCE_NOT_EXISTS"
    assert "mode v3" in outcome.explanation


async def test_certificates_are_renewed_in_passing_after_twelve_hours(certified: Bench) -> None:
    assert await _notified(certified, **by_certificate("one")) is None
    certified.clock.advance(timedelta(hours=12) - timedelta(seconds=1))
    certified.wechat.signed = None
    certified.wechat.certificates = hang
    assert await _notified(certified, **by_certificate("one")) is None
    assert certified.wechat.downloads == 1
    certified.clock.advance(timedelta(seconds=1))

    def at_their_time() -> Any:
        body = certificates_answer("one", "two")
        headers = stamped(body, at=certified.clock.now(), by="one", named=serial("one"))
        return answering(body, extra=raw(headers))

    certified.wechat.certificates = at_their_time()
    assert await _notified(certified, **by_certificate("one")) is None
    assert await _notified(certified, **by_certificate("two")) is None
    assert certified.wechat.downloads == 2


async def test_a_renewal_that_fails_in_passing_changes_nothing(certified: Bench) -> None:
    assert await _notified(certified, **by_certificate("one")) is None
    certified.clock.advance(timedelta(hours=13))
    certified.wechat.certificates = answering(b"", status=503)
    for _ in range(3):
        assert await _notified(certified, **by_certificate("one")) is None
    assert certified.wechat.downloads == 2
    certified.clock.advance(timedelta(seconds=5))
    assert await _notified(certified, **by_certificate("one")) is None
    assert certified.wechat.downloads == 3


async def test_while_one_renews_in_passing_the_others_go_on(certified: Bench) -> None:
    assert await _notified(certified, **by_certificate("one")) is None
    certified.clock.advance(timedelta(hours=13))
    reached, released = asyncio.Event(), asyncio.Event()

    async def slow(received: Received, writer: Any) -> None:
        reached.set()
        await released.wait()
        await answering(b"", status=503)(received, writer)

    certified.wechat.certificates = slow
    async with asyncio.timeout(10):
        first = asyncio.create_task(_notified(certified, **by_certificate("one")))
        await reached.wait()
        assert await _notified(certified, **by_certificate("one")) is None
        assert not first.done()
        released.set()
        assert await first is None
    assert certified.wechat.downloads == 2


async def test_whoever_goes_away_while_fetching_leaves_the_way_free(certified: Bench) -> None:
    reached = asyncio.Event()

    async def stuck(received: Received, writer: Any) -> None:
        reached.set()
        await hang(received, writer)

    certified.wechat.certificates = stuck
    async with asyncio.timeout(10):
        first = asyncio.create_task(_notified(certified, **by_certificate("one")))
        await reached.wait()
        second = asyncio.create_task(_notified(certified, **by_certificate("one")))
        certified.wechat.certificates = ("one",)
        first.cancel()
        assert await second is None
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_certificates_count_only_between_their_dates(client: httpx.AsyncClient) -> None:
    async with benching(client, "v3_certificate") as bench:
        assert await _notified(bench, **by_certificate("one")) is None
        bench.clock.advance(timedelta(days=1824, seconds=-1))
        bench.wechat.certificates = answering(b"", status=503)
        assert await _notified(bench, **by_certificate("one")) is None
        bench.clock.advance(timedelta(seconds=1))
        assert await _notified(bench, **by_certificate("one")) == "keys_unavailable"
        bench.clock.advance(timedelta(days=-1826))
        assert await _notified(bench, **by_certificate("one")) == "keys_unavailable"


async def test_certificates_typed_in_need_no_download(client: httpx.AsyncClient) -> None:
    typed = pem(certificate("typed"), certificate("two"))
    async with benching(client, "v3_certificate", platform_certificates=typed) as bench:
        bench.wechat.signed = by_certificate("typed")
        bench.wechat.says(PREPAID)
        assert isinstance(await bench.create(), Accepted)
        for name in ("typed", "two"):
            assert await _notified(bench, **by_certificate(name)) is None
        assert bench.wechat.downloads == 0
        bench.clock.advance(timedelta(hours=13))
        assert await _notified(bench, **by_certificate("typed")) is None
        assert bench.wechat.downloads == 0


_GOOD = json.loads(certificates_answer("one"))
_ITEM = _GOOD["data"][0]


def _with(**changes: Any) -> dict[str, Any]:
    return {"data": [_ITEM | changes]}


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"data": None}, {"data": {}}, {"data": [7]}, {"data": [_ITEM] * 21},
        _with(serial_no="5A00"), _with(serial_no=None), _with(encrypt_certificate=None),
        _with(encrypt_certificate=_ITEM["encrypt_certificate"] | {"algorithm": "none"}),
        _with(encrypt_certificate=_ITEM["encrypt_certificate"] | {"nonce": "short"}),
        _with(encrypt_certificate=encrypted(b"no certificate", associated_data="certificate")),
        _with(encrypt_certificate=encrypted(b"\xff", associated_data="certificate")),
        _with(encrypt_certificate=encrypted(public_text("wechat").encode(), associated_data="certificate")),
        _with(encrypt_certificate=encrypted(pem(certificate("one"), certificate("two")).encode(),
                                            associated_data="certificate")),
    ],
)  # fmt: skip
async def test_a_strange_list_of_certificates_is_not_believed(certified: Bench, answer: Any) -> None:
    body = json.dumps(answer).encode()
    certified.wechat.certificates = answering(body, extra=raw(stamped(body, by="one", named=serial("one"))))
    assert isinstance(await certified.create(), NotReached)
    assert await _notified(certified, **by_certificate("one")) == "keys_unavailable"


@pytest.mark.parametrize(
    "how",
    [
        None,
        by_certificate("one") | {"by": "stranger"},
        by_certificate("two"),
        by_certificate("one") | {"at": NOW - timedelta(seconds=300)},
        {"named": PUBLIC_KEY_ID},
    ],
    ids=str,
)
async def test_certificates_not_signed_by_one_of_them_are_not_believed(certified: Bench, how: Any) -> None:
    body = certificates_answer("one")
    extra = "" if how is None else raw(stamped(body, **how))
    certified.wechat.certificates = answering(body, extra=extra)
    assert isinstance(await certified.create(), NotReached)
    assert await _notified(certified, **by_certificate("one")) == "keys_unavailable"


async def test_certificates_signed_by_one_that_has_expired_are_not_believed(certified: Bench) -> None:
    certified.clock.advance(timedelta(days=1825))
    body = certificates_answer("one")
    headers = stamped(body, at=certified.clock.now(), by="one", named=serial("one"))
    certified.wechat.certificates = answering(body, extra=raw(headers))
    assert await _notified(certified, **by_certificate("one")) == "keys_unavailable"
    assert certified.wechat.downloads == 1


async def test_certificates_may_come_signed_with_the_public_key(bench: Bench) -> None:
    bench.wechat.certificates = certificates_answer("one")
    assert await _notified(bench, **by_certificate("one")) is None


async def test_an_answer_whose_key_cannot_be_fetched_is_unknown(bench: Bench) -> None:
    bench.wechat.signed = by_certificate("one")
    bench.wechat.certificates = answering(b"", status=503)
    bench.wechat.says(PREPAID)
    assert isinstance(await bench.create(), Unknown)
    assert serial("one") not in str(await bench.create())
