"""The native inference engine: loading, scheduling, decoding and its HTTP server."""
