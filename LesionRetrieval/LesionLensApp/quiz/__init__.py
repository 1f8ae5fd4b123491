"""The command line of the teaching room, and whole CTs as its cases."""
