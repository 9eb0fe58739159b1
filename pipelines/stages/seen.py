"""Where the store keeps what was found out about inputs, so that the next command need not find it out again."""

SEEN = ".seen"
"""The folder, relative to the store. Its files can be deleted at any time: they are then made again."""
