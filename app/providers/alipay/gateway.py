"""Alipay's one gateway, and the two ways to speak to it, both signed here and nowhere else.

    execute        we call it: common parameters in the query, biz_content in the body, and its answer is judged
    signed_query   a payer's device calls it: everything in one query, which is a page's link or an app's order string

Source: https://opendocs.alipay.com/common/02mse7, read 2026-09-11; DefaultAlipayClient of alipay-sdk-python 3.7.1411.
"""

import json
from collections.abc import Mapping
from urllib.parse import quote, urlencode

import httpx

from app.clock import Clock
from app.providers.alipay.account import AlipayAccount
from app.providers.alipay.answers import Judgement, judge_answer
from app.providers.alipay.signing import sign, string_to_sign
from app.providers.alipay.trades import beijing_time
from app.providers.transport import RawAnswer, post_form


class Gateway:
    """The client, the clock and the patience that all calls share; it knows no account."""

    def __init__(self, client: httpx.AsyncClient, clock: Clock, *, timeout_s: float) -> None:
        self._client = client
        self._clock = clock
        self._timeout_s = timeout_s

    async def execute(
        self, account: AlipayAccount, method: str, biz_content: Mapping[str, object], *, notify_url: str | None = None
    ) -> Judgement:
        """One call, judged on the received bytes."""
        params = self._params(account, method)
        if notify_url is not None:
            params["notify_url"] = notify_url
        content = _json(biz_content)
        params["sign"] = sign(account.private_key, string_to_sign({**params, "biz_content": content}).encode())
        exchange = await post_form(
            self._client,
            account.gateway,
            query=_encoded(params),
            body=_encoded({"biz_content": content}).encode("ascii"),
            timeout_s=self._timeout_s,
        )
        return judge_answer(account, method, exchange.body) if isinstance(exchange, RawAnswer) else exchange

    def signed_query(
        self,
        account: AlipayAccount,
        method: str,
        biz_content: Mapping[str, object],
        *,
        notify_url: str,
        return_url: str | None = None,
    ) -> str:
        """The whole encoded query; the same at the same second. Nothing is sent."""
        params = self._params(account, method)
        params["notify_url"] = notify_url
        if return_url is not None:
            params["return_url"] = return_url
        params["biz_content"] = _json(biz_content)
        params["sign"] = sign(account.private_key, string_to_sign(params).encode())
        return _encoded(params)

    def _params(self, account: AlipayAccount, method: str) -> dict[str, str]:
        return {**account.common_params, "method": method, "timestamp": beijing_time(self._clock.now())}


def _json(content: Mapping[str, object]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _encoded(params: Mapping[str, str]) -> str:
    return urlencode(params, quote_via=quote, safe="")
