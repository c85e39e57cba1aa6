"""The edges that users and hosts talk to: HTTP v2 (`http`) and the agents' gateway (`gateway`)."""
