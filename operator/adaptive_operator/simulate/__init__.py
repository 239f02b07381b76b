"""The operator's own decisions on a simulated cluster: traces in, figures out, no cluster needed."""
