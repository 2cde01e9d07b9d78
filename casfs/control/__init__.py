"""How commands talk to the daemon that has a store mounted."""
