"""The model on another computer: a runner that asks a server, and what goes over the way."""
