"""OpenAI's API under ``/v1``: chat completions, models, embeddings, and its errors."""

from fastapi import FastAPI

from serving.openai import completions, embeddings, errors, models


def install(app: FastAPI) -> None:
    """Add the routes, and answer every error below ``/v1`` as OpenAI does; after the application's own handlers."""
    errors.install(app)
    for module in (completions, models, embeddings):
        app.include_router(module.router)
