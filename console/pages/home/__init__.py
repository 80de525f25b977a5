"""Home: is anything wrong, and whose is it?"""
