"""The router: one HTTP endpoint per AdaptiveModel in front of the engines of all its tiers.

This package file imports nothing, so that the pure parts (shares, arrivals, table) can be used without aiohttp.
"""
