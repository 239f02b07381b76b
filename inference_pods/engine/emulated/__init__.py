"""An engine without weights: the real HTTP layer, scheduler and KV blocks, with steps that last as a curve says."""
