"""What should be: pure functions from an observation to a decision with its reasons."""
