"""The config document: all stored versions, and the changes that make the next one."""
