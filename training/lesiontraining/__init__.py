"""Offline model building and honest evaluation. Imports LesionLib; nothing in the extension imports this."""
