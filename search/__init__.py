"""Strategies, studies and the command line: what searches how to share."""
