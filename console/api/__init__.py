"""The frame of the REST API: who may call, how often, how errors look, and which address is
answered by which room.
"""
