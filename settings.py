"""Everything that the environment may set, read once.

A request beats the environment, the environment beats ``.env``, ``.env`` beats the defaults here. Only entry points
read this module; everything below them takes plain arguments.
"""

from __future__ import annotations

import errno
import getpass
import os
import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from errors import LuminaError

ROOT = Path(__file__).resolve().parent
"""Folder of the checkout, where ``goal_lattice.yml`` and the sample encyclopaedia lie."""

DEFAULT_OWNER = "local"
"""Whose conversations, tasks and passages they are when no API keys are set."""


OWNER_PATTERN = r"[^\s{}:,\x00-\x20\x7f-\xa0]{1,64}"
MOST_A_MINUTE = 1_000_000
"""The largest rate limit: buckets count in microseconds."""


class InvalidSettings(LuminaError):
    """An environment variable has a value that is not accepted."""


class Settings(BaseSettings):
    """The whole configuration. Variables are the field names in capitals; an empty variable counts as unset."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=False
    )

    data_dir: Path = Path(".lumina")
    """Folder of everything that the embedded engines keep."""
    goal_file: Path = ROOT / "goal_lattice.yml"
    """The goal lattice."""
    wiki_source: str | None = None
    """URL of a MediaWiki's api.php, or path of a ``.zim`` file; unset: the sample encyclopaedia."""
    wiki_contact: str = Field(default_factory=lambda: f"{getpass.getuser()}@{socket.gethostname()}")
    """How a wiki's operators reach whoever runs this crawler; part of the User-Agent."""

    redis_url: SecretStr | None = None
    """``redis://``, ``rediss://`` or ``unix://``; unset: an embedded server under DATA_DIR."""
    qdrant_url: str | None = None
    """URL of a Qdrant server; unset: Qdrant's engine inside this process, under DATA_DIR."""

    llm_provider: Literal["auto", "ollama", "mistral", "openai", "embedded"] = "auto"
    """Which chat model answers; ``auto`` takes the first that is configured, then the embedded one."""
    llm_temp: float = Field(default=0.2, ge=0, le=2)
    """Temperature of the chat model."""
    llm_budget_usd: float = Field(default=1.0, ge=0)
    """What one run may spend on paid models, in US dollars."""
    llm_prices: Path | None = None
    """JSON file with the prices of further models, or other prices of known ones; see ``models.prices``."""
    ollama_url: str | None = None
    ollama_model: str = "llama3.2"
    mistral_api_key: SecretStr | None = None
    mistral_model: str = "mistral-small-latest"
    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    openai_model: str = "gpt-4o-mini"
    embedding_model: str = "all-MiniLM-L6-v2"
    """The packaged all-MiniLM-L6-v2, ``nomic-ai/nomic-embed-text-v1``, or any sentence-transformers name or folder."""
    embedding_cache_size: int = Field(default=10_000, ge=0)
    """Vectors kept in memory, in front of the 24 hours in Redis."""

    crawl_rate_limit: int = 5
    """Crawls that one owner may start a minute."""
    summarise_rate_limit: int = 10
    qa_rate_limit: int = 20
    rate_limits: Annotated[dict[str, int], NoDecode] = {}
    """The same for any agent by its name: ``agent=number``, several separated by commas. What is set beats what the
    agent's own spec says; the three above beat this."""

    plan_cron: str = "*/15 * * * *"
    """When the standing goals are looked at (five cron fields, UTC)."""
    lumina_api_keys: SecretStr | None = None
    """``key`` or ``owner:key``, several separated by commas; unset: loopback only."""
    max_body_bytes: int = Field(default=8_000_000, ge=1)
    """The largest body of a request that is taken in."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins that a browser may call from, separated by commas."""
    ws_port: int = Field(default=8100, ge=1, le=65535)
    """Port of the event mux when it runs alone."""
    enable_kafka: bool = False
    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("crawl_rate_limit", "summarise_rate_limit", "qa_rate_limit", mode="before")
    @classmethod
    def _per_minute(cls, value: Any) -> Any:
        return _read_limit(str(value))

    @field_validator("rate_limits", mode="before")
    @classmethod
    def _per_minute_by_agent(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.split("=") for part in value.split(",") if part.strip()]
        if any(len(part) != 2 or not part[0].strip() for part in parts):
            raise ValueError("accepted: agent=number, several separated by commas, such as cook=3, waiter=30/minute")
        return {name.strip(): _read_limit(limit) for name, limit in parts}

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        origins = tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
        if not all(re.fullmatch(r"\*|https?://[^/\s*]+", origin) for origin in origins):
            raise ValueError("accepted: origins such as https://example.org or http://localhost:3000, or * for any")
        return origins

    @field_validator("lumina_api_keys")
    @classmethod
    def _keys_and_owners(cls, value: SecretStr | None) -> SecretStr | None:
        pairs = _read_keys(value)
        if any(not re.fullmatch(OWNER_PATTERN, owner) for owner, _ in pairs):
            # Braces would break the hash tags of Redis keys, which keep what is one owner's together on a cluster.
            raise ValueError("an owner is 1 to 64 printable characters without spaces, commas, colons or braces {}")
        if any(not re.fullmatch(r"[!-~]+", key) for _, key in pairs):
            raise ValueError("a key is not empty, and of printable ASCII without spaces; accepted: key or owner:key")
        if len({key for _, key in pairs}) < len(pairs):
            raise ValueError("a key stands there twice; each key belongs to one owner")
        return value

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _addresses(cls, value: str) -> str:
        servers = [server.strip() for server in value.split(",") if server.strip()]
        if not servers or not all(re.fullmatch(r"[^\s/]+:\d{1,5}", server) for server in servers):
            raise ValueError("accepted: host:port, several separated by commas")
        return ",".join(servers)

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not re.match(r"(redis|rediss|unix|valkey|valkeys)://", value.get_secret_value()):
            raise ValueError("accepted: redis://host:port/0, rediss://…, unix:///path")
        return value

    @field_validator("qdrant_url", "ollama_url", "openai_base_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value and not re.match(r"https?://[^/\s]+", value):
            raise ValueError("accepted: an address such as http://host:port")
        return value.rstrip("/") if value else None

    @field_validator("plan_cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        from croniter import croniter  # only where somebody has set it

        fields = value.split()
        # croniter's own additions, whose ticks differ from process to process
        steady = not any(re.match(r"[hr](\(|/|$)", field, re.IGNORECASE) for field in fields)
        if len(fields) != 5 or not steady or not croniter.is_valid(value, strict=True):
            raise ValueError("accepted: five cron fields with a date that comes, such as */15 * * * *")
        return value

    @field_validator("data_dir", "goal_file", "llm_prices")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().resolve() if value else None

    @model_validator(mode="after")
    def _provider_is_configured(self) -> Self:
        needs = {"ollama": "ollama_url", "mistral": "mistral_api_key", "openai": "openai_api_key"}
        name = needs.get(self.llm_provider)
        if name and getattr(self, name) is None and not (name == "openai_api_key" and self.openai_base_url):
            raise ValueError(f"LLM_PROVIDER={self.llm_provider} needs {name.upper()} to be set")
        return self

    def make_data_dir(self) -> Path:
        """DATA_DIR, which is there afterwards and can be written to.

        Raises:
            InvalidSettings: it cannot.
        """
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            if not os.access(self.data_dir, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "this user, or this file system, may not write to it")
        except OSError as error:
            raise InvalidSettings(
                f"DATA_DIR={self.data_dir}: {error.strerror}; accepted: a folder to write to"
            ) from None
        return self.data_dir

    def secrets(self) -> list[str]:
        """Every value that must not be shown: keys, and addresses that may hold a password."""
        given = [getattr(self, name) for name in type(self).model_fields]
        values = [value.get_secret_value() for value in given if isinstance(value, SecretStr)]
        return [*values, *self.api_keys()]

    def api_keys(self) -> dict[str, str]:
        """Key → the owner it stands for; empty when no keys are set."""
        return {key: owner for owner, key in _read_keys(self.lumina_api_keys)}

    def rate_limit_overrides(self, agents: Iterable[str]) -> dict[str, int]:
        """Agent → runs a minute, of those that somebody has set; the rest follow their agents' own specs.

        Raises:
            InvalidSettings: RATE_LIMITS names an agent that is not there.
        """
        known = list(agents)
        if unknown := sorted(set(self.rate_limits) - set(known)):
            raise InvalidSettings(f"RATE_LIMITS={unknown[0]}=…: no such agent; there are: {', '.join(known)}")
        named = {"crawl": "crawl_rate_limit", "summarise": "summarise_rate_limit", "qa": "qa_rate_limit"}
        chosen = {agent: getattr(self, name) for agent, name in named.items() if name in self.model_fields_set}
        return {**self.rate_limits, **{agent: limit for agent, limit in chosen.items() if agent in known}}


def _read_limit(text: str) -> int:
    match = re.fullmatch(r"\s*(\d{1,9})\s*(?:/\s*(?:m|min|minute))?\s*", text)
    if not match or not 1 <= int(match[1]) <= MOST_A_MINUTE:
        raise ValueError(f"accepted: a whole number from 1 to {MOST_A_MINUTE}, such as 5 or 5/minute")
    return int(match[1])


def _read_keys(value: SecretStr | None) -> list[tuple[str, str]]:
    text = value.get_secret_value() if value else ""
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        owner, separator, key = part.partition(":")
        found.append((owner.strip(), key.strip()) if separator else (DEFAULT_OWNER, part))
    return found


def load_settings(**overrides: Any) -> Settings:
    """Read the environment and ``.env``; ``overrides`` (for example from the command line) win, ``None`` is ignored.

    Raises:
        InvalidSettings: one line that names the variable, its value and what is accepted.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise InvalidSettings("; ".join(_explain(problem) for problem in error.errors())) from None


def _explain(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    variable = str(problem["loc"][0]).upper()
    secret = any(word in variable for word in ("KEY", "REDIS_URL"))
    value = "(not shown)" if secret else repr(problem["input"])
    return f"{variable}={value}: {message[0].lower()}{message[1:]}"


def is_loopback(host: str) -> bool:
    """Whether ``host`` is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
