"""The config document: every version as it was signed, and how a change makes the next one."""
