"""Who is who: certificates of nodes and hosts, tokens of users; the TLS layer verifies chains, we read names."""
