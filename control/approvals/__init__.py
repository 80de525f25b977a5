"""Four eyes: requests for changes that need a second person, the votes on them, and the mode.

It knows people and digests, and nothing of what a digest stands for.
"""
