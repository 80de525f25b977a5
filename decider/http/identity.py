"""What names the app of a check: the gateway, or the credential that the check carries."""

from __future__ import annotations

from decider.http.problem import Problem, RefusedError, unauthorized
from decider.identity.credentials import Credentials
from decider.identity.errors import CredentialError, Why

# None: the gateway names the app in x-sluice-app, having verified who asks.
IdentityRule = Credentials | None

# What a client is told. Chosen: enough to repair an honest client. Which check failed helps only
# somebody who tries; it is counted for the operator.
_NOT_VALID = unauthorized("The credential is not valid.", "invalid_token")
_TOLD: dict[Why, Problem] = {
    Why.MISSING: unauthorized("Send a credential with the request."),
    Why.EXPIRED: unauthorized("The credential has expired; get a new one.", "invalid_token"),
    Why.NOT_YET: unauthorized("The credential is not valid yet.", "invalid_token"),
}


def app_of(identity: Credentials, credential: str, source: str) -> str:
    """Return the app that a credential stands for. Raise RefusedError with a 401."""
    try:
        return identity.read(credential, source)
    except CredentialError as error:
        raise RefusedError(_TOLD.get(error.why, _NOT_VALID)) from None
