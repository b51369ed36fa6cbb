"""GraphQL over HTTP: the specification's own audits, limits, masking, origins."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import structlog
from graphql import get_introspection_query

from app.auth import issue_token
from app.main import create_app
from tests.api.conftest import Api, serving_api
from tests.api.node import node_lines
from tests.fixtures.servers import OwnPostgres
from tests.fixtures.shop import Shop, config_for
from tests.fixtures.web import serving

FEATURE = "{ paymentFeature { active } }"


async def test_specification_audits(shared_api: Api) -> None:
    """The published audits of graphql-http: all 61 pass, warnings included."""
    report = [json.loads(line) async for line in node_lines("audits.mjs", shared_api.url)]
    assert [audit for audit in report if audit["status"] != "ok"] == []
    assert len(report) == 61


# --- shape of requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"null", {}, 400),
        (b'"{__typename}"', {}, 400),
        (b"{}", {}, 400),
        (b'{"query": null}', {}, 400),
        (b'{"query": ["{__typename}"]}', {}, 400),
        (b'{"query": "{__typename}", "variables": "x"}', {}, 400),
        (b'{"query": "{__typename}", "variables": []}', {}, 400),
        (b'{"query": "{__typename}", "operationName": 5}', {}, 400),
        (b'{"query": "{__typename}", "extensions": []}', {}, 400),
        (b'[{"query": "{__typename}"}]', {}, 400),
        (b"\xff\xfe", {}, 400),
        (b'{"query": "{__typename}"}', {"content-type": "text/plain"}, 415),
        (b'{"query": "{__typename}"}', {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b'{"query": "{__typename}"}', {"content-type": "application/json; charset=gbk"}, 415),
        (b'{"query": "{__typename}"}', {"content-type": ""}, 415),
        (b'{"query": "{__typename}"}', {"accept": "image/png"}, 406),
        (b'{"query": "{__typename}"}', {"accept": "application/json;q=0"}, 406),
        (b'{"query": "{__typename}"}', {}, 200),
        (b'{"query": "{__typename}", "variables": null, "operationName": null, "extensions": {"x": 1}}', {}, 200),
    ],
)
async def test_malformed_requests(shared_api: Api, body: bytes, headers: dict[str, str], status: int) -> None:
    response = await shared_api.http.post(
        shared_api.url, content=body, headers={"content-type": "application/json"} | headers
    )
    assert response.status_code == status
    assert ("errors" in response.json()) is (status != 200)


async def test_mutations_are_refused_by_get(shared_api: Api) -> None:
    order_id = await shared_api.shop.order()
    given = f'{{orderId: "{order_id}", method: ALIPAY_PAGE, subject: "x"}}'
    query = f"mutation {{ createPayment(input: {given}) {{ id }} }}"
    for accept in ("application/json", "application/graphql-response+json", "text/event-stream"):
        headers = shared_api.headers() | {"accept": accept}
        response = await shared_api.http.get(shared_api.url, params={"query": query}, headers=headers)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert await shared_api.payments_of(order_id) == 0
    response = await shared_api.http.put(shared_api.url, json={"query": FEATURE})
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


async def test_queries_by_get(shared_api: Api) -> None:
    parameters = {"query": "query Q($id: ID!) { payment(id: $id) { id } } query R { __typename }"}
    headers = shared_api.headers()
    response = await shared_api.http.get(
        shared_api.url,
        params=parameters | {"operationName": "Q", "variables": '{"id": "999999999"}'},
        headers=headers,
    )
    assert response.json() == {"data": {"payment": None}}
    response = await shared_api.http.get(shared_api.url, params=parameters | {"variables": "{"}, headers=headers)
    assert response.status_code == 400


async def test_several_operations_need_a_name(shared_api: Api) -> None:
    query = "query A { __typename } query B { __typename }"
    refused = await shared_api.error(query)
    assert refused["code"] == "INVALID_QUERY"
    response = await shared_api.http.post(shared_api.url, json={"query": query, "operationName": "C"})
    assert "no operation named 'C'" in response.json()["errors"][0]["message"]
    response = await shared_api.http.post(shared_api.url, json={"query": query, "operationName": "B"})
    assert response.json() == {"data": {"__typename": "Query"}}


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["Bearer", "Basic dTpw", "Bearer x.y.z", "x"])
async def test_bad_tokens_are_refused_whatever_is_asked(shared_api: Api, header: str) -> None:
    for accept, status in (("application/json", 200), ("application/graphql-response+json", 401)):
        response = await shared_api.http.post(
            shared_api.url, json={"query": "{__typename}"}, headers={"authorization": header, "accept": accept}
        )
        assert response.status_code == status
        (error,) = response.json()["errors"]
        assert error["extensions"]["code"] == "UNAUTHENTICATED"
        assert "data" not in response.json()


async def test_token_in_the_address_or_a_cookie_is_no_token(shared_api: Api) -> None:
    token = shared_api.token()
    response = await shared_api.http.post(
        f"{shared_api.url}?token={token}&authorization=Bearer%20{token}",
        json={"query": FEATURE},
        headers={"cookie": f"token={token}; authorization=Bearer {token}"},
    )
    assert response.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


# --- limits -----------------------------------------------------------------------------------------------------------

DEEP = "{ order(id: 1) " + "{ payments { order " * 8 + "{ id }" + " } }" * 8 + " }"
TOO_COMPLEX = {
    "depth": DEEP,
    "nesting": "{ order(id: 1) " + "{ payments " * 400 + "{ id }" + " }" * 400 + " }",
    "aliases": "{ " + " ".join(f"a{number}: __typename" for number in range(5)) + " ".join(
        f' b{number}: order(id: "{number}") {{ id }}' for number in range(31)) + " }",
    "tokens": "{ " + "__typename " * 1000 + "}",
    "cost": "{ payments(orderId: 1) { order { payments { order { payments { id amount } } } } } }",
    "fragments": "{ ...A } " + " ".join(
        f"fragment {name} on Query {{ ...{after} ...{after} ...{after} ...{after} }}"
        for name, after in zip("ABCDEFGH", "BCDEFGHI", strict=True)) + " fragment I on Query { __typename }",
    "limit": "{ flowRuns(limit: 100) { id eventId paymentId flow trigger status attempts dueAt error createdAt } }",
}  # fmt: skip


@pytest.mark.parametrize("kind", TOO_COMPLEX)
async def test_too_complex_over_http(shared_api: Api, kind: str) -> None:
    refused = await shared_api.error(TOO_COMPLEX[kind], sub="root", role="admin")
    assert (refused["code"], refused["messageZh"]) == ("QUERY_TOO_COMPLEX", "查询过于复杂")


async def test_variables_nested_deeply_are_refused(shared_api: Api) -> None:
    nested = '{"query": "query ($x: [ID!]) { __typename }", "variables": {"x": ' + "[" * 5000 + "]" * 5000 + "}}"
    response = await shared_api.http.post(shared_api.url, content=nested, headers={"content-type": "application/json"})
    assert response.status_code in (200, 400)
    assert "errors" in response.json()


async def test_fragments_that_contain_themselves_are_refused(shared_api: Api) -> None:
    refused = await shared_api.error("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }")
    assert refused["code"] == "INVALID_QUERY"


async def test_body_above_the_limit_is_not_read(shared_api: Api) -> None:
    limit = shared_api.shop.config.body_limit_bytes
    declared = await shared_api.http.post(
        shared_api.url, content=b" " * (limit + 1), headers={"content-type": "application/json"}
    )
    assert declared.status_code == 413
    assert declared.json()["errors"][0]["extensions"]["code"] == "QUERY_TOO_COMPLEX"


async def test_body_without_a_declared_length_is_cut_off_at_the_limit(shared_api: Api) -> None:
    host, port = shared_api.origin.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    for _ in range(shared_api.shop.config.body_limit_bytes // 0x4000 + 1):
        writer.write(chunk)
        await writer.drain()
    # The body has not ended, and the answer is there.
    assert await reader.readline() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
    writer.close()


async def test_introspection_is_off_unless_asked_for(shop: Shop) -> None:
    async with serving_api(shop) as closed:
        for query in (get_introspection_query(), '{ __type(name: "Payment") { name } }'):
            response = await closed.http.post(closed.url, json={"query": query})
            assert "introspection has been disabled" in response.json()["errors"][0]["message"]
        misspelt = await closed.http.post(closed.url, json={"query": "{ paymentFeatur { active } }"})
        assert "Did you mean" not in misspelt.text
        assert (await closed.http.get(closed.url, headers={"accept": "text/html"})).status_code == 406


async def test_introspection_works_when_asked_for(shared_api: Api) -> None:
    response = await shared_api.http.post(shared_api.url, json={"query": get_introspection_query()})
    assert response.json()["data"]["__schema"]["mutationType"]["name"] == "Mutation"


# --- faults of ours ---------------------------------------------------------------------------------------------------


async def test_internal_errors_are_masked_and_found_in_the_log(api: Api) -> None:
    await api.shop.connection.execute("alter table shouyin.payment rename to payment_gone")
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logged:
        response = await api.http.post(
            api.url,
            json={"query": '{ payment(id: "1") { id } }'},
            headers=api.headers() | {"x-correlation-id": "the-callers-own-id"},
        )
    (error,) = response.json()["errors"]
    assert error["extensions"]["code"] == "INTERNAL"
    assert error["extensions"]["correlationId"] == "the-callers-own-id"
    assert response.headers["x-correlation-id"] == "the-callers-own-id"
    assert "payment_gone" not in response.text
    assert "does not exist" not in response.text
    (entry,) = [entry for entry in logged if entry["event"] == "internal_error"]
    assert (entry["error"], entry["correlation_id"]) == ("UndefinedTableError", "the-callers-own-id")


async def test_mistakes_of_clients_write_nothing_to_the_log(shared_api: Api) -> None:
    with structlog.testing.capture_logs() as logged:
        for query in ("{", "{ nope }", "{ payment }", '{ payment(id: "1") { id } }', TOO_COMPLEX["depth"]):
            await shared_api.post(query, sub=None)
    assert logged == []


@pytest.mark.parametrize("given", ["short", "with blank inside", "x" * 65, '{"a":1}'])
async def test_unusable_correlation_ids_are_replaced(shared_api: Api, given: str) -> None:
    response = await shared_api.http.post(
        shared_api.url, json={"query": "{__typename}"}, headers=[("x-correlation-id", given)]
    )
    assert len(response.headers["x-correlation-id"]) == 16


# --- origins ----------------------------------------------------------------------------------------------------------


async def test_origins(shop: Shop) -> None:
    allowed, other = "https://shop.example", "https://evil.example"
    async with serving_api(shop, allowed_origins=(allowed,)) as api:
        for origin, granted in ((allowed, allowed), (other, None)):
            preflight = await api.http.options(
                api.url, headers={"origin": origin, "access-control-request-method": "POST"}
            )
            assert preflight.status_code == (204 if granted else 403)
            assert preflight.headers.get("access-control-allow-origin") == granted
            answer = await api.http.post(api.url, json={"query": "{__typename}"}, headers={"origin": origin})
            assert answer.status_code == 200
            assert answer.headers.get("access-control-allow-origin") == granted
        assert "authorization" in preflight.headers.get("access-control-allow-headers", "authorization")
        assert "access-control-allow-credentials" not in answer.headers


# --- pages, health, metrics -------------------------------------------------------------------------------------------


async def test_graphiql_is_served_where_asked_for(shop: Shop) -> None:
    async with serving_api(shop, graphiql=True) as api:
        page = await api.http.get(api.url, headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "GraphiQL" in page.text
        answer = await api.http.get(api.url, params={"query": "{__typename}"})
        assert answer.json() == {"data": {"__typename": "Query"}}


async def test_health_and_readiness(api: Api) -> None:
    assert (await api.http.get(f"{api.origin}/healthz")).json() == {"status": "ok"}
    ready = await api.http.get(f"{api.origin}/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "reasons": {}})
    await api.shop.connection.execute("delete from shouyin.migration")
    unready = await api.http.get(f"{api.origin}/readyz")
    assert unready.status_code == 503
    assert unready.json()["reasons"].keys() == {"migrations"}


async def test_without_the_database_nothing_hangs_and_nothing_leaks(
    own_postgres: OwnPostgres, redis_url: str, tmp_path: Path, http: httpx.AsyncClient
) -> None:
    url = await own_postgres.create_database("shop")
    config = config_for(url, redis_url, tmp_path)
    headers = {"authorization": f"Bearer {issue_token(config, '7', ttl=timedelta(hours=1))}"}
    async with serving(create_app(config)) as origin:
        assert (await http.get(f"{origin}/readyz")).status_code == 200
        own_postgres.stop()
        unready = await http.get(f"{origin}/readyz")
        assert unready.status_code == 503
        assert unready.json()["reasons"]["database"] == "does not answer"
        # A provider repeats what was answered with 5xx.
        notified = await http.post(f"{origin}/notify/alipay/1", content=b"sign=x")
        assert notified.status_code == 500
        asked = await http.post(f"{origin}/graphql", json={"query": "{ payment(id: 1) { id } }"}, headers=headers)
        watched = await http.post(
            f"{origin}/graphql",
            json={"query": "subscription { payments(orderId: 1) { id } }"},
            headers=headers | {"accept": "text/event-stream"},
        )
        for answer in (notified, asked, watched):
            assert '"code":"INTERNAL"' in answer.text
            assert "127.0.0.1" not in answer.text
        assert (await http.get(f"{origin}/healthz")).status_code == 200


async def test_metrics_are_for_neighbours_only(api: Api) -> None:
    await api.post("{__typename}")
    scraped = await api.http.get(f"{api.origin}/metrics")
    assert scraped.headers["content-type"].startswith("text/plain")
    for name in (
        'shouyin_http_requests_total{route="/graphql",status="2xx"} 1.0',
        "shouyin_sockets 0.0",
        "shouyin_subscriptions 0.0",
        "shouyin_flow_failures_total 0.0",
        "shouyin_inbox_age_seconds 0.0",
        "shouyin_realtime_safety_poll_repairs_total 0.0",
        "shouyin_realtime_relay_lag_seconds_count",
    ):
        assert name in scraped.text
    assert (await api.http.get(f"{api.origin}/metrics", headers={"x-forwarded-for": "1.2.3.4"})).status_code == 404


async def test_paths_nobody_serves(shared_api: Api) -> None:
    for path in ("/graphql/", "/graphqlx", "/nothing", "/notifyx", "/metrics/"):
        assert (await shared_api.http.get(shared_api.origin + path)).status_code == 404, path
