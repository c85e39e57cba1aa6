"""Decisions: a snapshot of the state in, commands or reports out. Pure; whoever calls them acts."""
