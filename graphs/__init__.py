"""The goal lattice, the planner and the state machine that the planner steers."""
