"""The sandbox as a real HTTP server, reset before each test, and what talks to it."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.sandbox.accounts import load_or_create_accounts
from app.sandbox.main import run_in_process
from tests.sandbox.alipay.client import AlipayClient
from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer, running_merchant_server
from tests.sandbox.wechat.client import WechatClient


@pytest.fixture(scope="session")
def sandbox_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sandbox")


@pytest.fixture(scope="session")
async def sandbox_url(sandbox_directory: Path) -> AsyncIterator[str]:
    async with run_in_process(sandbox_directory) as base_url:
        yield base_url


@pytest.fixture(scope="session")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
async def sandbox(sandbox_url: str, http: httpx.AsyncClient) -> SandboxHandle:
    """The sandbox as after a fresh start."""
    handle = SandboxHandle(sandbox_url, http)
    await handle.control("POST", "/reset")
    return handle


@pytest.fixture
async def merchant() -> AsyncIterator[MerchantServer]:
    async with running_merchant_server() as server:
        yield server


@pytest.fixture(scope="session")
def accounts(sandbox_directory: Path, sandbox_url: str) -> dict[str, dict[str, str]]:
    """The published accounts by mode; no two providers have a mode in common."""
    return {account["mode"]: account for account in load_or_create_accounts(sandbox_directory, sandbox_url)}


@pytest.fixture
def alipay(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> AlipayClient:
    """A merchant in public-key mode, at a freshly reset sandbox."""
    return AlipayClient(accounts["public_key"], sandbox.http)


@pytest.fixture
def certificate_alipay(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> AlipayClient:
    return AlipayClient(accounts["certificate"], sandbox.http)


@pytest.fixture
def isv_alipay(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> AlipayClient:
    return AlipayClient(accounts["isv"], sandbox.http)


@pytest.fixture
def wechat(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> WechatClient:
    """A merchant in public-key mode, at a freshly reset sandbox."""
    return WechatClient(accounts["v3"], sandbox.http)


@pytest.fixture
def certificate_wechat(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> WechatClient:
    return WechatClient(accounts["v3_certificate"], sandbox.http)


@pytest.fixture
def partner_wechat(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> WechatClient:
    return WechatClient(accounts["v3_partner"], sandbox.http)
