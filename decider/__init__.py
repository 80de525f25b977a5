"""The online path: the code that decides each request, and the contracts that other packages use.

Nothing here imports Django. `policy` holds the one pure function that chooses an action. Around it:

- `contracts`: features, config document, decision event and store names;
- `engine`: counters, and the passes that turn a batch of requests into signals and answers;
- `scoring`: LightGBM models, read, checked and evaluated;
- `refusal`: what a refused client is told;
- `whatif`: stored decisions made again, as they were or with one thing changed;
- `http` and `node`: the server, and the process around it.
"""

from decider.compiled_cache import use_own_folder

use_own_folder()
