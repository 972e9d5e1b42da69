"""A second application on Lumina's engine: three agents that serve a dinner. There is no Wikipedia in it."""
