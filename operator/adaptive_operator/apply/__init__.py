"""Effects: the Lease, server-side apply with preconditions, status, Events. Nothing else writes to the cluster."""
