"""How gunicorn serves the console behind Envoy; `manage.py up` starts it with this file."""

# Threads, because a page waits for the database most of the time.
worker_class, threads = "gthread", 8
# As many connections as threads, each for one request: a worker whose threads are all busy takes
# none, so the next one does.
worker_connections, keepalive = threads, 0
# Loaded once: workers share its memory, and one that is replaced serves at once.
preload_app = True
# Seconds until a worker that does not live counts as dead. Chosen: on a busy small machine the
# process may be late to show that it lives.
timeout = 60
# Seconds in which a worker that ends finishes its requests. Chosen: most pages take less than one,
# and Ctrl-C should not wait for a long export.
graceful_timeout = 8
# Sockets and files are this user's alone.
umask = 0o077
# Sluice does not use the control socket.
control_socket_disable = True
