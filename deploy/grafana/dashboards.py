"""Writes the dashboards that Grafana is provisioned with: ``python deploy/grafana/dashboards.py``.

A panel is a line here, and sixty lines in Grafana's JSON; a test compares the two, and another one asks a real
Prometheus every expression.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parent / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH, HEIGHT = 8, 7
"""Of a panel, on Grafana's grid of 24 columns."""
EVERY = "$__rate_interval"

Unit = Literal["short", "s", "reqps", "ops", "percentunit", "currencyUSD", "bytes", "dtdurations"]


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    unit: Unit
    queries: dict[str, str]
    """Legend → expression."""
    stat: bool = False
    """One large number instead of a curve."""
    about: str = ""

    def to_json(self, number: int) -> dict[str, Any]:
        """The panel as Grafana keeps it, three in a row."""
        row, column = divmod(number, 24 // WIDTH)
        return {
            "id": number + 1,
            "type": "stat" if self.stat else "timeseries",
            "title": self.title,
            "description": self.about,
            "datasource": DATASOURCE,
            "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
            "fieldConfig": {"defaults": {"unit": self.unit, "min": 0}, "overrides": []},
            "options": {} if self.stat else {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list"}},
            "targets": [
                {"refId": chr(ord("A") + place), "datasource": DATASOURCE, "expr": query, "legendFormat": legend}
                for place, (legend, query) in enumerate(self.queries.items())
            ],
        }


def p95(histogram: str, by: str = "") -> str:
    """The time below which 95 of 100 are."""
    return (
        f"histogram_quantile(0.95, sum by ({', '.join(filter(None, ('le', by)))}) (rate({histogram}_bucket[{EVERY}])))"
    )


def rate(counter: str, by: str) -> str:
    """How often a second."""
    return f"sum by ({by}) (rate({counter}[{EVERY}]))"


SHOWN = 'route!~"/health|/metrics.*"'
"""Requests of people; machines ask the others all day."""

OVERVIEW = [
    Panel("Roles that answer", "short", {"{{role}} {{instance}}": 'up{job="lumina"}'}, stat=True),
    Panel(
        "Requests that fail",
        "percentunit",
        {
            "share": f'(sum(rate(lumina_http_requests_total{{{SHOWN},status=~"5.."}}[{EVERY}])) or vector(0))'
            f" / sum(rate(lumina_http_requests_total{{{SHOWN}}}[{EVERY}]))"
        },
    ),
    Panel("Requests", "reqps", {"{{status}}": rate(f"lumina_http_requests_total{{{SHOWN}}}", "status")}),
    Panel(
        "Until an answer begins, p95",
        "s",
        {"{{route}}": p95("lumina_http_request_seconds", "route")},
        about="A stream's own length does not count.",
    ),
    Panel("Graph", "short", {"nodes": "max(lumina_graph_nodes)", "edges": "max(lumina_graph_edges)"}),
    Panel("New nodes within an hour", "short", {"nodes": "max(lumina_graph_nodes_last_hour)"}, stat=True),
    Panel("Tasks", "short", {"{{status}}": "max by (status) (lumina_tasks)"}),
    Panel("Conversations", "short", {"conversations": "max(lumina_conversations)"}, stat=True),
    Panel("Whole runs, p95", "s", {"run": p95("lumina_run_seconds")}),
    Panel("Memory", "bytes", {"{{role}} {{instance}}": 'process_resident_memory_bytes{job="lumina"}'}),
    Panel(
        "Processor",
        "percentunit",
        {"{{role}} {{instance}}": f'rate(process_cpu_seconds_total{{job="lumina"}}[{EVERY}])'},
    ),
    Panel(
        "Version",
        "short",
        {"{{version}}, Python {{python}}": "count by (version, python) (lumina_build_info)"},
        stat=True,
    ),
]

AGENTS = [
    Panel("Runs", "ops", {"{{agent}} {{outcome}}": rate("lumina_agent_runs_total", "agent, outcome")}),
    Panel("Seconds of a run, p95", "s", {"{{agent}}": p95("lumina_agent_seconds", "agent")}),
    Panel(
        "Runs that fail",
        "percentunit",
        {
            "{{agent}}": f'sum by (agent) (rate(lumina_agent_runs_total{{outcome="failed"}}[{EVERY}]))'
            f" / sum by (agent) (rate(lumina_agent_runs_total[{EVERY}]))"
        },
    ),
    Panel("Decisions of the planner, p95", "s", {"decision": p95("lumina_planner_seconds")}),
    Panel("Open tasks", "short", {"{{kind}} {{status}}": "max by (kind, status) (lumina_open_tasks)"}),
    Panel("Had to wait for the rate limit", "ops", {"{{agent}}": rate("lumina_rate_limited_total", "agent")}),
    Panel("Leases", "short", {"held": "max(lumina_leases)"}),
    Panel(
        "How old",
        "s",
        {
            "oldest task that waits": "max(lumina_queue_age_seconds)",
            "oldest that runs": "max(lumina_lease_age_seconds)",
        },
    ),
    Panel("Dead tasks", "short", {"dead": 'max(lumina_tasks{status="dead"})'}, stat=True),
]

STREAMS = [
    Panel("Not handed out yet (lag)", "short", {"{{stream}} {{group}}": "max by (stream, group) (lumina_stream_lag)"}),
    Panel("Not acknowledged", "short", {"{{stream}} {{group}}": "max by (stream, group) (lumina_stream_pending)"}),
    Panel(
        "Length, of what is kept",
        "percentunit",
        {"{{stream}}": "max by (stream) (lumina_stream_length) / max by (stream) (lumina_stream_max_length)"},
        about="Above 100 % some group is further behind than the stream is long, and producers are held back.",
    ),
    Panel("Members of groups", "short", {"{{stream}} {{group}}": "max by (stream, group) (lumina_stream_consumers)"}),
    Panel("Dead letters", "short", {"{{stream}}": "max by (stream) (lumina_dead_letters)"}),
    Panel("Events", "ops", {"{{type}}": rate("lumina_events_total", "type")}),
    Panel("Passages", "short", {"{{which}}": "max by (which) (lumina_passages)"}),
    Panel("Clients that follow", "short", {"{{of}}": "sum by (of) (lumina_followers)"}),
    Panel("Clients that were too slow", "ops", {"dropped": f"sum(rate(lumina_followers_dropped_total[{EVERY}]))"}),
]

COST = [
    Panel("Spent", "currencyUSD", {"all": "sum(lumina_agent_usd_total)"}, stat=True),
    Panel("An hour costs", "currencyUSD", {"{{agent}}": "sum by (agent) (increase(lumina_agent_usd_total[1h]))"}),
    Panel(
        "Budget of the dearest run",
        "currencyUSD",
        {"left": "min(lumina_llm_budget_left_usd)", "of": "max(lumina_llm_budget_usd)"},
    ),
    Panel("Tokens", "ops", {"{{agent}} {{kind}}": rate("lumina_agent_tokens_total", "agent, kind")}),
    Panel(
        "Tokens a second that a model writes",
        "ops",
        {
            "{{provider}} {{model}}": f"sum by (provider, model) (rate(lumina_llm_output_tokens_total[{EVERY}]))"
            f" / sum by (provider, model) (rate(lumina_llm_seconds_total[{EVERY}]))"
        },
    ),
    Panel(
        "First token, p95", "s", {"{{provider}} {{model}}": p95("lumina_llm_first_token_seconds", "provider, model")}
    ),
    Panel("Calls", "ops", {"{{provider}} {{model}}": rate("lumina_llm_calls_total", "provider, model")}),
    Panel(
        "Providers that failed before another answered",
        "ops",
        {"{{provider}} {{model}}": rate("lumina_llm_fallbacks_total", "provider, model")},
    ),
    Panel(
        "Refused for the budget", "ops", {"{{provider}} {{model}}": rate("lumina_llm_refused_total", "provider, model")}
    ),
    Panel("Where vectors come from", "ops", {"{{from}}": rate("lumina_embedding_cache_texts_total", "from")}),
]

DASHBOARDS = {"overview": OVERVIEW, "agents": AGENTS, "streams": STREAMS, "cost": COST}


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard as Grafana reads it; every one links to the others."""
    return {
        "uid": f"lumina-{name}",
        "title": f"Lumina: {name}",
        "tags": ["lumina"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "utc",
        "links": [{"type": "dashboards", "title": "Lumina", "tags": ["lumina"], "keepTime": True}],
        "panels": [panel.to_json(number) for number, panel in enumerate(DASHBOARDS[name])],
    }


def text_of(name: str) -> str:
    """The file of a dashboard."""
    return json.dumps(dashboard(name), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text_of(name))
