"""The product's settings, read after the servers they name were started."""

from tests import servers

servers.start()

from console.settings import *  # noqa: E402, F403
