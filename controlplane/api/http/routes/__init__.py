"""The paths of API v2, one module per concern. Handlers are thin: what they share stands one package up."""
