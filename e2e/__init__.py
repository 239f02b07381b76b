"""End-to-end checks of Adaptive LLM and the cluster they run on."""
