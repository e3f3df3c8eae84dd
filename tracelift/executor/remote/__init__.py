"""An executor (or a Reason RM) behind a server: the client, what travels, every wait's end, and work begun ahead."""
