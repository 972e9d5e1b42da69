from __future__ import annotations

import os
from pathlib import Path

import pytest

from settings import InvalidSettings, Settings, is_loopback, load_settings

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_request_beats_the_environment_beats_the_env_file_beats_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert load_settings().qa_rate_limit == 20
    (tmp_path / ".env").write_text("QA_RATE_LIMIT=7\n")
    assert load_settings().qa_rate_limit == 7
    monkeypatch.setenv("QA_RATE_LIMIT", "8/minute")
    assert load_settings().qa_rate_limit == 8
    assert load_settings(qa_rate_limit=9).qa_rate_limit == 9


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "")
    assert load_settings().redis_url is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LLM_TEMP", "9", ["LLM_TEMP", "9", "2"]),
        ("LLM_PROVIDER", "gpt", ["LLM_PROVIDER", "gpt", "ollama"]),
        ("REDIS_URL", "localhost:6379", ["REDIS_URL", "redis://host"]),
        ("QDRANT_URL", "localhost", ["QDRANT_URL", "localhost", "http://host:port"]),
        ("PLAN_CRON", "daily", ["PLAN_CRON", "daily", "five cron fields"]),
        ("PLAN_CRON", "99 * * * *", ["PLAN_CRON", "99", "five cron fields"]),
        ("PLAN_CRON", "0 0 30 2 *", ["PLAN_CRON", "30 2", "a date that comes"]),
        ("PLAN_CRON", "R * * * *", ["PLAN_CRON", "five cron fields"]),
        ("CRAWL_RATE_LIMIT", "lots", ["CRAWL_RATE_LIMIT", "lots", "5/minute"]),
        ("CRAWL_RATE_LIMIT", "0", ["CRAWL_RATE_LIMIT", "0", "from 1"]),
        ("QA_RATE_LIMIT", "99999999999999", ["QA_RATE_LIMIT", "1000000"]),
        ("RATE_LIMITS", "cook", ["RATE_LIMITS", "cook=3"]),
        ("RATE_LIMITS", "cook=many", ["RATE_LIMITS", "many", "whole number"]),
        ("MAX_BODY_BYTES", "0", ["MAX_BODY_BYTES", "1"]),
        ("CORS_ORIGINS", "example.org", ["CORS_ORIGINS", "https://example.org"]),
        ("CORS_ORIGINS", "https://example.org/page", ["CORS_ORIGINS", "origins such as"]),
        ("LUMINA_API_KEYS", "a{d}a:k1", ["LUMINA_API_KEYS", "braces"]),
        ("LUMINA_API_KEYS", ":k1", ["LUMINA_API_KEYS", "owner"]),
        ("LUMINA_API_KEYS", "ada:", ["LUMINA_API_KEYS", "not empty"]),
        ("LUMINA_API_KEYS", "ada:k1,bob:k1", ["LUMINA_API_KEYS", "twice"]),
        ("LUMINA_API_KEYS", f"{'a' * 65}:k1", ["LUMINA_API_KEYS", "64"]),
        ("LLM_PROVIDER", "mistral", ["MISTRAL_API_KEY"]),
    ],
)
def test_a_bad_value_is_one_line_with_variable_value_and_what_is_accepted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: list[str]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as raised:
        load_settings()
    text = str(raised.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "http://:hunter2@host")
    with pytest.raises(InvalidSettings) as raised:
        load_settings()
    assert "hunter2" not in str(raised.value)
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@host")
    assert "hunter2" not in repr(load_settings())


def test_keys_stand_for_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMINA_API_KEYS", "ada:k1, k2")
    assert load_settings().api_keys() == {"k1": "ada", "k2": "local"}
    monkeypatch.setenv("LUMINA_API_KEYS", "Ada_1@example.org: k1 , łukasz:sk-a:b")
    assert load_settings().api_keys() == {"k1": "Ada_1@example.org", "sk-a:b": "łukasz"}


def test_an_origin_may_end_in_a_slash() -> None:
    assert load_settings(cors_origins="https://ui.example/, *").cors_origins == ("https://ui.example", "*")


def test_only_limits_that_somebody_set_override_those_of_the_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = ["crawl", "summarise", "qa", "other"]
    assert load_settings().rate_limit_overrides(agents) == {}
    monkeypatch.setenv("RATE_LIMITS", "qa=3/minute, other=4")
    assert load_settings().rate_limit_overrides(agents) == {"qa": 3, "other": 4}
    monkeypatch.setenv("QA_RATE_LIMIT", "5")
    assert load_settings().rate_limit_overrides(agents) == {"qa": 5, "other": 4}
    with pytest.raises(InvalidSettings, match="RATE_LIMITS=other"):
        load_settings().rate_limit_overrides(agents[:3])


def test_the_example_lists_every_variable_with_its_default() -> None:
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    example = {name.lower(): value.strip('"') for name, value in (line.split("=", 1) for line in lines)}
    assert set(example) == set(Settings.model_fields)
    read = load_settings(_env_file=ROOT / ".env.example")
    plain = load_settings(_env_file=None)
    assert read.model_dump() == plain.model_dump()


@pytest.mark.parametrize("folder", ["file", "file/below", "sealed"])
def test_a_data_dir_that_cannot_be_written_to_is_one_line_that_names_it(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "sealed").mkdir(mode=0o500)
    if folder == "sealed" and os.access(tmp_path / "sealed", os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(InvalidSettings, match=f"^DATA_DIR={tmp_path / folder}: .*; accepted: a folder") as raised:
        load_settings(data_dir=tmp_path / folder).make_data_dir()
    assert len(str(raised.value).splitlines()) == 1


def test_loopback_is_told_from_the_rest() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")
