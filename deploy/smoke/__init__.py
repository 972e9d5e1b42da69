"""The smoke test of a deployment; ``deploy/smoke.sh`` starts it."""
