"""Arrays through a network: the `Session` protocol, exact tiling, and which session works here."""
