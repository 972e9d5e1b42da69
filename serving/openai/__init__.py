"""OpenAI's API under ``/v1``: chat completions, models, embeddings, and its errors."""

from fastapi import FastAPI

from serving.openai import completions, embeddings, errors, models

ROUTERS = (completions.router, models.router, embeddings.router)
"""The routes; ``install`` makes their errors OpenAI's."""


def install(app: FastAPI) -> None:
    """Answer every error below ``/v1`` as OpenAI does; after the application's own handlers."""
    errors.install(app)
