"""Making a cluster and joining one: what the commands `init`, `join` and `node certify` do on the machine itself."""
