"""The Adaptive LLM operator: observe, decide, plan, apply, report."""
