"""Chat models, embeddings and the budget that they spend."""
