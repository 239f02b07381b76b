"""The planner's integer program for all models of one pool: data, exact solver, configuration master, fallbacks."""
