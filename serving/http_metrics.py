"""Counts the requests of one process and logs each: how it ended, how long it took."""

from __future__ import annotations

import time
from dataclasses import dataclass

from loguru import logger
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histogram: from a health check to a crawl that somebody waits for."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CLIENT_LEFT = 499
"""Status of a request whose client went away before the answer began, as nginx counts it."""


class HttpMetrics:
    """The figures of an application's requests; one for each application, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, processor time and start of this process
        labels = ("route", "method")
        self.requests = Counter(
            "lumina_http_requests", "HTTP requests that have ended.", (*labels, "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "lumina_http_request_seconds",
            "Seconds until the answer began; a stream's own length does not count.",
            labels,
            buckets=BUCKETS_S,
            registry=self.registry,
        )

    def totals(self) -> HttpTotals:
        """All routes together, but for those that machines ask all day."""
        requests = failed = 0
        below: dict[float, float] = {}
        for sample in (sample for family in self.registry.collect() for sample in family.samples):
            if sample.labels.get("route") in QUIET:
                continue
            if sample.name == "lumina_http_requests_total":
                requests += int(sample.value)
                failed += int(sample.value) * (sample.labels["status"] >= "500")
            elif sample.name == "lumina_http_request_seconds_bucket":
                bound = float(sample.labels["le"])
                below[bound] = below.get(bound, 0) + sample.value
        known = [bound for bound in sorted(below) if bound <= BUCKETS_S[-1]]
        p95_s = next((bound for bound in known if below[bound] >= 0.95 * requests), BUCKETS_S[-1])
        return HttpTotals(requests, failed, p95_s if requests else None)


@dataclass(frozen=True, slots=True)
class HttpTotals:
    """The requests of people, since this process began."""

    requests: int
    failed: int
    """Of these, ended with a status of 500 and above."""
    p95_s: float | None
    """The bound of the histogram below which 95 of 100 answers began; None before the first."""


QUIET = frozenset({"/health", "/metrics", "/metrics/summary"})
"""Routes that machines ask all day: logged at DEBUG."""


class CountRequests:
    """ASGI middleware that counts and logs requests by the route's template, never by the path itself."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.perf_counter()
        status, answered_s = CLIENT_LEFT, 0.0

        async def sending(message: Message) -> None:
            nonlocal status, answered_s
            if message["type"] == "http.response.start":
                status, answered_s = message["status"], time.perf_counter() - began
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:  # it passes on; only its status is counted
            status = 500 if status == CLIENT_LEFT else status
            raise
        finally:
            whole_s = time.perf_counter() - began
            route, method = _labels(scope)
            self._metrics.requests.labels(route, method, str(status)).inc()
            self._metrics.seconds.labels(route, method).observe(answered_s or whole_s)
            level = "DEBUG" if route in QUIET and status < 500 else "INFO"
            facts = {"method": method, "route": route, "status": status, "seconds": round(whole_s, 4)}
            state = scope.get("state", {})
            facts |= {name: state[name] for name in ("owner", "task_id") if state.get(name)}
            logger.bind(**facts).log(level, "{} {} {} {:.0f} ms", method, route, status, whole_s * 1000)


def _labels(scope: Scope) -> tuple[str, str]:
    """Route and method; both from sets that no client can make larger."""
    route = getattr(scope.get("route"), "path", None)
    method = scope["method"] if scope["method"] in METHODS else "other"
    return route or ("mounted" if scope.get("endpoint") else "none"), method
