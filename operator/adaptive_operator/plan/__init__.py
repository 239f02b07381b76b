"""How to get there: pure functions from a decision to ordered, idempotent steps and manifests."""
