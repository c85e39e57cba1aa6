"""What several test folders share: builders of specs and commands, the machine's invariants, a machine to drive."""
