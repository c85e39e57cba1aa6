"""The nouns of the product: what users declare, what the log carries, what the state holds. No behaviour that acts."""
