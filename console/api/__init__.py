"""The frame of the REST API: who may call and how often, shared fields, pages of lists."""
