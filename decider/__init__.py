"""The online path: what decides each request, and the contracts every other room reads it by.

Nothing here imports Django. The contracts are `vocabulary`, `features`, `signals`, `config`,
`event`, `requests` and `store`; the engine is `state`, `policy`, `trees` and `engine`; the edges
are `http`, `link` and `server`.
"""

from .compiled_cache import use_own_folder

use_own_folder()
