"""What is done once: hosts are emptied and opened again, microVMs are started anew, garbage is collected."""
