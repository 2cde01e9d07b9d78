"""Random legal requests, of every kind and with every flag, on a mount: nothing may go wrong."""
