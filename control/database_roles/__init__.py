"""Roles in PostgreSQL, one for each kind of process: what each may do there, and whether a process
is one that may do too much.
"""
