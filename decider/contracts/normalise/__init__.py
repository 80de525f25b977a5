"""One reading of what a client or a gateway may write in several ways."""
