"""Routes that are made when somebody first asks for them."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from fastapi import APIRouter
from starlette.middleware import Middleware

from serving.late_routes import AwaitRoutes, LateApplication


class Maker:
    """Makes one route, as slowly as a test says; counts how often."""

    def __init__(self) -> None:
        self.made = 0
        self.breaks = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self) -> APIRouter:
        self.made += 1
        assert self.may_go_on.wait(30)
        if self.breaks:
            raise ImportError("no such package")
        router = APIRouter()
        router.add_api_route("/late/answer", lambda: "late")
        return router


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def app(maker: Maker) -> LateApplication:
    app = LateApplication(middleware=[Middleware(AwaitRoutes)])
    app.add_api_route("/early", lambda: "early")
    app.include_late("/late", maker)
    return app


def client_of(app: LateApplication) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://lumina")


async def test_nobody_waits_for_routes_that_he_does_not_ask_for(app: LateApplication, maker: Maker) -> None:
    async with client_of(app) as client:
        assert (await client.get("/early")).json() == "early"
        assert (await client.get("/unknown")).status_code == 404
        assert maker.made == 0
        assert (await client.get("/late/answer")).json() == "late"
    assert maker.made == 1


async def test_first_requests_wait_for_one_making_while_others_are_answered(app: LateApplication, maker: Maker) -> None:
    maker.may_go_on.clear()
    async with client_of(app) as client:
        waiting = [asyncio.create_task(client.get("/late/answer")) for _ in range(5)]
        async with asyncio.timeout(30):
            while not maker.made:
                assert (await client.get("/early")).json() == "early"
        assert not any(task.done() for task in waiting)
        maker.may_go_on.set()
        assert [answer.json() for answer in await asyncio.gather(*waiting)] == ["late"] * 5
    assert maker.made == 1


async def test_the_description_has_late_routes(app: LateApplication, maker: Maker) -> None:
    async with client_of(app) as client:
        described = (await client.get("/openapi.json")).json()
        assert set(described["paths"]) == {"/early", "/late/answer"}
    assert maker.made == 1


def test_whoever_reads_the_routes_gets_all(app: LateApplication) -> None:
    assert len(LateApplication().routes) + 2 == len(app.routes)
    assert "/late/answer" in app.openapi()["paths"]


async def test_what_breaks_once_is_tried_again(app: LateApplication, maker: Maker) -> None:
    maker.breaks = True
    async with client_of(app) as client:
        assert (await client.get("/late/answer")).status_code == 500
        assert (await client.get("/early")).status_code == 200
        maker.breaks = False
        assert (await client.get("/late/answer")).json() == "late"
