"""Recourse, "way back" on pages: the smallest change with which a refused request is admitted."""
