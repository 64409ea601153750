"""The HTTP shell that every engine of ours shares; it knows text and the wire, never how a token is computed."""
