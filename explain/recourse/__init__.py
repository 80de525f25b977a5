"""Ways back: the smallest change under which a refused request is admitted."""
