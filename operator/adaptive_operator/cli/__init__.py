"""`kubectl adaptive`: the command line."""
