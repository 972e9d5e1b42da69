"""The agents: each one a typed Runnable with a spec, usable alone or as a node of the graph."""
