"""Inference pods of Adaptive LLM: the router, the native engine and its kernels."""
