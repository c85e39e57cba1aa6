"""API v2 over HTTPS: translate, authenticate, propose, await the outcome, translate back. It decides nothing."""
