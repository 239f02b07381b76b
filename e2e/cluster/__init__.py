"""A real Kubernetes on one Linux machine, without Docker: `python -m e2e.cluster --help`."""
