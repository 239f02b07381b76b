"""Many emulated pods where no process runs (kwok nodes): one exporter emits the series that they would have."""
