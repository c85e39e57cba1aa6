"""A node's files of the audit chain, and who keeps the chain: what begins it, and what drops its oldest records."""
