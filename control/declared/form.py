"""The form of `sluice.yaml`: what may stand in it, with types, ranges and defaults.

The JSON Schema that editors and checks use is made from here (`schema.py`). What an entry leaves
out has its default: an entry that the file names is the file's in whole.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from decider.contracts import config as document

# as the config document, or nothing could follow what a file says
Name = document.Name
Positive = document.Positive
Share = document.Share
PositiveShare = document.PositiveShare
Route = Annotated[
    str,
    Meta(
        pattern=r"^/",
        max_length=256,
        description="Path below which requests belong to the service, such as /v2/orders.",
    ),
]
Request = Annotated[
    str,
    Meta(
        pattern=r"^[A-Z]{3,7} /",
        max_length=264,
        description="Method and path; {id} stands for one segment: GET /v2/orders/{id}.",
    ),
]
TierName = Literal["free", "standard", "premium", "enterprise"]


class Endpoint(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An endpoint that differs from its service's default."""

    cost: Annotated[Positive, Meta(description="Cost units of a request at its own service.")] = 1.0
    costs: Annotated[
        dict[Name, Positive],
        Meta(description="Cost units at every service that a request loads, where several are."),
    ] = {}
    batch: Annotated[
        str,
        Meta(max_length=120, description="Batch form to ask for: POST /v2/orders:batchGet."),
    ] = ""
    sign_in: (
        Annotated[
            bool,
            Meta(
                description="Whether requests carry credentials to be checked. Left out: the words"
                " of the path decide."
            ),
        ]
        | UnsetType
    ) = UNSET


class Service(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A protected service."""

    routes: Annotated[
        list[Route],
        Meta(
            max_length=100,
            description="Paths of the service. Empty where the gateway names the service itself.",
        ),
    ]
    capacity: Annotated[
        Positive, Meta(description="Cost units a second it serves before it slows down.")
    ]
    latency_ms: Annotated[Positive, Meta(description="Its usual latency, milliseconds.")]
    target: Annotated[
        PositiveShare,
        Meta(description="Share of the capacity at which it is held while it is short of room."),
    ] = 0.85
    endpoints: Annotated[
        dict[Request, Endpoint], Meta(description="Endpoints that differ, by method and path.")
    ] = {}


class Plan(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an app of a tier is owed, and what a wrong decision about it costs. What is left out has
    the default of this tier.
    """

    rate: Annotated[Positive, Meta(description="Requests a second by which its bucket refills.")]
    burst: Annotated[Positive, Meta(description="Requests that its full bucket holds.")]
    quota_per_day: Annotated[Positive, Meta(description="Requests in a UTC day; a hard limit.")]
    weight: (
        Annotated[Positive, Meta(description="Weight of its tenants in the fair share.")]
        | UnsetType
    ) = UNSET
    friction: (
        Annotated[
            Positive, Meta(description="Utility lost by a false block, in ordinary requests.")
        ]
        | UnsetType
    ) = UNSET
    harm: (
        Annotated[
            Positive,
            Meta(description="Utility lost by an abusive request admitted, in ordinary requests."),
        ]
        | UnsetType
    ) = UNSET
    error_budget: (
        Annotated[
            PositiveShare,
            Meta(description="False throttles an app may suffer from ML, share of its requests."),
        ]
        | UnsetType
    ) = UNSET
    rank_from: (
        Annotated[Share, Meta(description="Quick score from which on the model is asked.")]
        | UnsetType
    ) = UNSET
    headroom: (
        Annotated[
            Share,
            Meta(description="Room above the burst in which ML may admit, share of the burst."),
        ]
        | UnsetType
    ) = UNSET
    headroom_to: (
        Annotated[
            Literal["all", "proven"],
            Meta(description="Which apps have the headroom: all, or those that proved honest."),
        ]
        | UnsetType
    ) = UNSET


class Tenant(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A customer organisation."""

    name: Annotated[str, Meta(min_length=1, max_length=200, description="Name shown to people.")]
    weight: Annotated[
        Positive, Meta(description="Weight in the fair share, times that of the tier.")
    ] = 1.0


class UnknownApps(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What apps may do that nobody registered."""

    tier: Annotated[TierName, Meta(description="Plan that they have.")] = "free"
    treatment: Annotated[
        Literal["plan", "share", "refuse"],
        Meta(
            description="plan: each has the plan of the tier. share: those of one address share one"
            " plan, all together the bucket below. refuse: none is served until it is registered."
        ),
    ] = "plan"
    rate: Annotated[
        Positive, Meta(description="With share: requests a second of all, on each decider.")
    ] = document.UnknownApps().rate
    burst: Annotated[
        Positive, Meta(description="With share: requests that all may send at once.")
    ] = document.UnknownApps().burst


class Sampling(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How likely each kind of decision is to be kept."""

    budget_per_s: Annotated[Positive, Meta(description="Kept decisions a second of a decider.")] = (
        document.Sampling().budget_per_s
    )
    admit: Annotated[Share, Meta(description="Of admitted requests.")] = document.Sampling().admit
    refuse: Annotated[
        Share, Meta(description="Of defers, batches and sheds below the enterprise tier.")
    ] = document.Sampling().refuse
    block: Annotated[Share, Meta(description="Of blocks.")] = document.Sampling().block
    enterprise_refuse: Annotated[Share, Meta(description="Of refusals of the enterprise tier.")] = (
        document.Sampling().enterprise_refuse
    )


class Entry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whom a rule without an end is about: exactly one of the three."""

    app: Annotated[Name, Meta(description="Id of an app.")] | UnsetType = UNSET
    tenant: Annotated[Name, Meta(description="Id of a tenant.")] | UnsetType = UNSET
    source: (
        Annotated[Name, Meta(description="Address or network, such as 192.0.2.0/24.")] | UnsetType
    ) = UNSET


Entries = Annotated[list[Entry], Meta(max_length=10_000)]


class Lists(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rules without an end. One that ends is made in the console and is never in the file."""

    allow: Annotated[Entries, Meta(description="Always served.")] = []
    block: Annotated[Entries, Meta(description="Never served.")] = []
    compliance: Annotated[
        Entries, Meta(description="Never served, whatever a list or a person says.")
    ] = []


class Retention(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long decisions are kept."""

    days: Annotated[int, Meta(ge=1, le=3_650, description="Days that decisions are kept.")]


class Gateway(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A gateway that asks the deciders."""

    kind: Annotated[
        Literal["envoy", "nginx", "caddy", "api"],
        Meta(description="api: the service asks /v1/decide itself."),
    ]


class Declaration(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An installation. What the file does not name stays as it is."""

    sluice: Annotated[Literal[1], Meta(description="Version of this form.")]
    gateways: dict[Name, Gateway] | UnsetType = UNSET
    services: dict[Name, Service] | UnsetType = UNSET
    tiers: dict[TierName, Plan] | UnsetType = UNSET
    tenants: dict[Name, Tenant] | UnsetType = UNSET
    unknown_apps: UnknownApps | UnsetType = UNSET
    lists: Lists | UnsetType = UNSET
    sampling: Sampling | UnsetType = UNSET
    retention: Retention | UnsetType = UNSET
