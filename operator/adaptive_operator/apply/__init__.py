"""Effects: server-side apply, fencing, the Lease."""
