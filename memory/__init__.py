"""All that lasts: streams, checkpoints, events, vectors, the graph, conversations."""
