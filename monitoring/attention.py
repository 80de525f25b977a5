"""What needs someone's attention now, most urgent first. The functions are pure: they turn facts
into lines, and each line names the role it is for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from decider.contracts.config import ALL_ML, OBSERVE_ONLY, Config, Switch, version_text
from decider.contracts.store import NodeStatus
from decider.contracts.units import span
from decider.contracts.vocabulary import ML_STATE_TEXT, MlState
from monitoring import anchors, guardrails, storing
from monitoring.attention_item import AttentionItem
from monitoring.fleet import FEEDBACK_LATE_S, INGEST_WARN_S, Fleet

# Seconds. A switch that clears by itself within this time is worth a look.
ENDS_SOON_S = 7_200.0
# Seconds that a decider may take to apply a new config before it counts as behind; a push takes
# milliseconds, a poll seconds.
OLD_CONFIG_S = 10.0
# Fewer refusals of a minute than this need no line when they were not explained; fewer unknown
# paths than this say nothing about a route.
FEW = 10
# Share of the last minutes' requests with an unknown path. Above it a route or a prefix is missing
# rather than that somebody probes for addresses.
UNKNOWN_PATHS = 0.01
# Chosen: what a person takes in at one look; more would hide the urgent ones.
MOST = 6

SWITCH_NAMES = {ALL_ML: "All ML", OBSERVE_ONLY: "Observe only"}


@dataclass(frozen=True)
class Explained:
    """How well explaining keeps up."""

    dropped: int
    """Refusals of the last minute that were left without an explanation."""
    mismatches: int
    """Explanations of the last day that do not add up to their score."""
    stopped: bool = False
    """Whether decisions wait and none was explained for a minute."""


@dataclass(frozen=True)
class Facts:
    """What the findings are made from. None stands for a source that did not answer or does not
    exist.
    """

    fleet: Fleet | None
    explained: Explained | None = None
    over: tuple[str, ...] = ()
    """Guardrails that are over their limit, as clauses: "Shed rate is 2.10%, over its limit of
    1.00%".
    """
    old_disputes: tuple[int, float] = (0, 0.0)
    """Disputes that have waited for a verdict for longer than a day, and the age of the oldest,
    seconds.
    """
    storing: storing.Storing | None = None
    anchoring: anchors.Anchoring | None = None
    targets: dict[str, float] = field(default_factory=dict)
    """Share of capacity to which each service is held while it is short of room."""


# Everything known about the fleet comes through Valkey, so without Valkey this line replaces all
# lines about the fleet.
NO_STORE = AttentionItem(
    95,
    "alert",
    "Valkey does not answer",
    "Deciders go on with their last config. What they report is not known here.",
    "SRE",
    "switches",
)


def find(facts: Facts) -> list[AttentionItem]:
    """Return at most `MOST` lines, most urgent first."""
    items = [NO_STORE] if facts.fleet is None else _in_fleet(facts.fleet, facts.targets)
    if facts.storing is not None:
        items += storing.find(facts.storing)
    if facts.anchoring is not None:
        items += anchors.find(facts.anchoring)
    items += _explanations(facts.explained) + _disputes(*facts.old_disputes)
    items += [
        AttentionItem(68, "alert", clause, "Over the time shown on this page.", "SRE", "guardrails")
        for clause in facts.over
    ]
    # sorting is stable, so findings of the same urgency keep their order each time
    return sorted(items, key=lambda item: -item.urgency)[:MOST]


def _in_fleet(fleet: Fleet, targets: dict[str, float]) -> list[AttentionItem]:
    """Return what the deciders' reports and the store show."""
    return [
        *_config_error(fleet),
        *_ahead(fleet),
        *_deciders(fleet),
        *_unbelieved(fleet),
        *_alone(fleet),
        *_rejected_reports(fleet),
        *_unasked(fleet),
        *_late_checks(fleet),
        *_dropped(fleet),
        *_clocks(fleet),
        *_leases(fleet),
        *_credentials(fleet),
        *_agents(fleet),
        *_ml(fleet),
        *_switches(fleet),
        *_lag(fleet),
        *_misrouted(fleet),
        *_unknown_paths(fleet),
        *_late_feedback(fleet),
        *_outcomes(fleet),
        *_given_up(fleet),
        *_services(fleet, targets),
    ]


def _config_error(fleet: Fleet) -> list[AttentionItem]:
    if not fleet.config_error:
        return []
    title = "The published config cannot be used"
    detail = f"{_first_up(fleet.config_error)}. Deciders keep the last good one."
    return [AttentionItem(92, "alert", title, detail, "SRE", "switches")]


def _ahead(fleet: Fleet) -> list[AttentionItem]:
    """Return the deciders that follow a newer config than the published one."""
    ahead = [n for n in fleet.nodes if fleet.config and n.config_version > fleet.config.version]
    if fleet.config is None or not ahead:
        return []
    names = _and_more([node.node for node in ahead])
    newest = version_text(max(node.config_version for node in ahead))
    detail = (
        f"{names}: config {newest}; published is {version_text(fleet.config.version)}. No switch"
        " reaches them. If the database was restored, run `manage.py restored`; after flips by"
        " file, `manage.py switch --reconcile`."
    )
    title = "Deciders follow a newer config than the console knows"
    # chosen: as a config that nobody can use (92), as here, too, no change arrives
    return [AttentionItem(92, "alert", title, detail, "SRE", "switches")]


def _deciders(fleet: Fleet) -> list[AttentionItem]:
    """Return the deciders that are silent or run another config than the published one."""
    lost = [_lost(node.node, fleet.at - node.seen_at) for node in fleet.lost]
    if (config := fleet.config) is None:
        return lost
    late = [_late(n, config, fleet.at) for n in fleet.nodes if _is_late(n, config, fleet.at)]
    return lost + late


def _lost(node: str, silent_s: float) -> AttentionItem:
    detail = f"Last report {span(silent_s)} ago. The gateway gives its apps to the others."
    return AttentionItem(85, "alert", f"{node} has stopped reporting", detail, "SRE", "propagation")


def _unbelieved(fleet: Fleet) -> list[AttentionItem]:
    """Return that something in deciders' places is not sealed by this installation."""
    if not fleet.doubts:
        return []
    first = fleet.doubts[0]
    others = _and_more(sorted({doubt.node for doubt in fleet.doubts} - {first.node}))
    detail = (
        f"{first.node}’s {first.what}: {first.why}.{f' Also {others}.' if others else ''} What a"
        " decider runs that is not believed is not known here. Upgrade it, give it this"
        " installation’s token.key, or find out who writes to Valkey."
    )
    title = "A decider’s report was not believed"
    # chosen: below a lost decider (85), which is known not to answer, and above those that are
    # wrong and known (80)
    return [AttentionItem(83, "alert", title, detail, "SRE", "propagation")]


def _alone(fleet: Fleet) -> list[AttentionItem]:
    """Return the deciders that do not hear of the others' traffic."""
    # chosen: above late feedback (50), as services are used less than they could be meanwhile
    alone = [node.node for node in fleet.nodes if node.alone]
    if not alone:
        return []
    detail = (
        f"{', '.join(alone)}: no reports of the other deciders arrive. Each gives a service no more"
        " than its equal part of the room. Check Valkey and the network."
    )
    return [AttentionItem(60, "alert", "Deciders decide alone", detail, "SRE", "propagation")]


def _rejected_reports(fleet: Fleet) -> list[AttentionItem]:
    """Return the deciders that got reports which no decider of their fleet made."""
    # chosen: as a config that nobody can use (92) is worse, and a lost decider (85) as well
    rejected = [node for node in fleet.nodes if node.reports_rejected]
    if not rejected:
        return []
    detail = (
        f"{', '.join(node.node for node in rejected)}: up to"
        f" {max(node.reports_rejected for node in rejected):,} since the start. They were ignored."
        " Either a decider has another token.key, or somebody writes to Valkey."
    )
    title = "Reports between deciders were not authentic"
    return [AttentionItem(75, "alert", title, detail, "SRE", "propagation")]


def _dropped(fleet: Fleet) -> list[AttentionItem]:
    # chosen: below late feedback (50), as nobody can bring back what is lost
    dropped = sum(node.events_dropped for node in fleet.nodes)
    if not dropped:
        return []
    title = f"{dropped:,} sampled decisions were dropped"
    detail = (
        "Their buffer was full while Valkey did not take them. Counts are too low by that much."
    )
    return [AttentionItem(45, "alert", title, detail, "SRE", "ingest")]


def _unasked(fleet: Fleet) -> list[AttentionItem]:
    """Return that requests went on without a decision, by what the gateways tell."""
    (unasked, asked), share = fleet.unasked, fleet.unasked_share
    if share is None or share <= guardrails.UNASKED_LIMIT:
        return []
    # chosen: below a config that nobody can use (92), as these requests still meet a rule
    title = f"{share:.1%} of requests got no decision in time"
    detail = (
        f"{unasked:,} of {asked:,} in the last minute. The gateway went on by its own rule. Look at"
        " CPU and health of the deciders."
    )
    return [AttentionItem(90, "alert", title, detail, "SRE", "guardrails")]


def _late_checks(fleet: Fleet) -> list[AttentionItem]:
    """Return that deciders have too little time to ask the model."""
    timely, checks = fleet.timely, max(fleet.timely.recent_checks, 1)
    items = []
    if (share := timely.recent_late / checks) > guardrails.LATE_LIMIT:
        # chosen: as a decider without ML (80), which is what it is for these requests
        title = f"{share:.1%} of requests were decided without the model"
        detail = (
            f"{_who_was(fleet, 'recent_late')} had too many at once to ask it for each, so token"
            " buckets decided these. Add a decider, or give these more CPU."
        )
        items.append(AttentionItem(80, "alert", title, detail, "SRE", "guardrails"))
    # said by the gateway's own figure where there is one
    undecided = timely.recent_undecided / checks
    if undecided > guardrails.UNASKED_LIMIT and fleet.unasked_share is None:
        title = f"{undecided:.1%} of requests reached a decider too late"
        detail = (
            f"{_who_was(fleet, 'recent_undecided')} did not decide them. The gateway went on by its"
            " own rule. Look at CPU and health of the deciders."
        )
        items.append(AttentionItem(89, "alert", title, detail, "SRE", "guardrails"))
    return items


def _who_was(fleet: Fleet, count: str) -> str:
    return _and_more([node.node for node in fleet.nodes if getattr(node.timely, count)])


def _clocks(fleet: Fleet) -> list[AttentionItem]:
    """Return the deciders whose machine's clock was set while they ran."""
    # chosen: below lost decisions (45), as limits are not affected; only times that are shown are
    # wrong
    stepped = [node for node in fleet.nodes if node.clock_steps]
    if not stepped:
        return []
    names = ", ".join(node.node for node in stepped)
    detail = (
        f"{names}: up to {max(node.clock_steps for node in stepped)} times since the start. Limits"
        " went on as before; ends of rules follow the clock. Check time synchronisation there."
    )
    return [AttentionItem(38, "alert", "A decider’s clock jumped", detail, "SRE", "propagation")]


def _leases(fleet: Fleet) -> list[AttentionItem]:
    """Return that the ledger of leases is rebuilt, and that the store grants what it must not."""
    items = []
    if waiting := [node for node in fleet.nodes if node.leases_wait]:
        # chosen: below a decider that is lost (85): that is often the cause, and what to look at
        detail = (
            f"New leases on {_and_more([node.node for node in waiting])} wait for"
            f" {waiting[0].leases_wait}. Until then apps have what deciders hold of their quotas."
            " A decider that is waited for must start with its directory; else the day (UTC) ends."
        )
        title = "Daily quotas are being rebuilt"
        items.append(AttentionItem(73, "alert", title, detail, "SRE", "propagation"))
    if refused := sum(node.leases_refused for node in fleet.nodes):
        title = f"Answers about {refused:,} lease{'s' if refused > 1 else ''} were refused"
        detail = "Valkey granted more than is due, or no number. Who else writes to this Valkey?"
        items.append(AttentionItem(71, "alert", title, detail, "SRE", "propagation"))
    return items


def _credentials(fleet: Fleet) -> list[AttentionItem]:
    """Return that files of keys are not in use, and that credentials came too fast to be read."""
    items = []
    if stale := [node for node in fleet.nodes if node.identity.error]:
        # chosen: above an old config (70), as a key that was taken back may still be believed
        title = "Deciders read credentials with old files"
        names = _and_more([node.node for node in stale])
        detail = f"{names}: {_first_up(stale[0].identity.error)}. The last good files stay in use."
        items.append(AttentionItem(72, "alert", title, detail, "SRE", "propagation"))
    if unread := sum(node.identity.recent_unread for node in fleet.nodes):
        # chosen: below what is broken (70), as requests are still decided
        plural = "s were" if unread > 1 else " was"
        title = f"{unread:,} credential{plural} not read in the last minute"
        detail = (
            "More new tokens came than deciders verify, good ones or forged ones. Such requests are"
            " decided as unknown apps, by their address."
        )
        items.append(AttentionItem(55, "alert", title, detail, "SRE", "propagation"))
    return items


def _agents(fleet: Fleet) -> list[AttentionItem]:
    """Return what gateways would not hold to if no decider answered."""
    items = []
    for lost in fleet.lost_agents:
        # chosen: below a lost decider (85), as the last rules stay in force at the gateway
        detail = (
            f"Last report {span(fleet.at - lost.seen_at)} ago. The gateway keeps the last rules"
            " that it was given; new blocks hold only while deciders answer."
        )
        title = f"The agent of {lost.node} has stopped reporting"
        items.append(AttentionItem(66, "alert", title, detail, "SRE", "propagation"))
    for agent in fleet.agents:
        if agent.error:
            title = f"{agent.name} holds old block rules"
            detail = f"{_first_up(agent.error)}. Deciders follow the newest ones."
            items.append(AttentionItem(67, "alert", title, detail, "SRE", "propagation"))
        if agent.left_out:
            title = f"{agent.left_out:,} rules are more than {agent.name} is given"
            detail = (
                f"It holds {agent.held:,}. Deciders enforce all; while none answers, the rest is"
                " not blocked there. Remove old entries, or list networks and tenants."
            )
            items.append(AttentionItem(53, "alert", title, detail, "SRE", "propagation"))
    return items


def _and_more(names: list[str]) -> str:
    # chosen: three names fit a line
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _is_late(node: NodeStatus, config: Config, now: float) -> bool:
    return node.config_version < config.version and now - config.issued_at > OLD_CONFIG_S


def _late(node: NodeStatus, config: Config, now: float) -> AttentionItem:
    why = f" {_first_up(node.last_error)}." if node.last_error else ""
    detail = (
        f"Still on cfg {version_text(node.config_version)} after"
        f" {span(now - config.issued_at)}.{why}"
    )
    return AttentionItem(
        70,
        "alert",
        f"{node.node} is {_behind(config.version, node.config_version)}",
        detail,
        "SRE",
        "propagation",
    )


def _behind(newest: int, own: int) -> str:
    if own > newest:
        return "ahead of the published config"
    if own == 0:
        return "without a config"
    return "one config behind" if newest - own == 1 else f"{newest - own} configs behind"


def _ml(fleet: Fleet) -> list[AttentionItem]:
    # with the switch engaged ML is off on purpose, and the switch has its own line
    if fleet.engaged(ALL_ML):
        return []
    if fleet.config and fleet.config.model is None:
        # one line for all deciders: without a model each of them reports the same
        detail = "The fallback limiter decides until one is promoted."
        return [AttentionItem(80, "alert", "No model is live", detail, "ML", "switches")]
    return [_without_ml(node) for node in fleet.without_ml]


def _without_ml(node: NodeStatus) -> AttentionItem:
    state = MlState(node.ml_state)
    why = _first_up(ML_STATE_TEXT[state])
    # the model is asked all the same, as other requests may get a score
    bad = state == MlState.BAD_SCORE
    where = "where it gives none" if bad else "there"
    return AttentionItem(
        80,
        "alert",
        f"ML fails on {node.node}" if bad else f"ML is off on {node.node}",
        f"{why}; the fallback limiter decides {where}.",
        "ML",
        "propagation",
    )


def _switches(fleet: Fleet) -> list[AttentionItem]:
    return [_switch(switch, fleet.at) for switch in fleet.switches]


def _switch(switch: Switch, now: float) -> AttentionItem:
    name = SWITCH_NAMES.get(switch.name, switch.name)
    if switch.until is not None and switch.until - now < ENDS_SOON_S:
        detail = "It clears by itself then. Extend it or let it clear."
        return AttentionItem(
            55,
            "defer",
            f"Switch “{name}” ends in {span(switch.until - now)}",
            detail,
            "SRE",
            "switches",
        )
    end = (
        "until someone clears it"
        if switch.until is None
        else f"for another {span(switch.until - now)}"
    )
    effect = (
        "The fallback limiter decides everything."
        if switch.name == ALL_ML
        else "Decisions are recorded, and everything is admitted."
    )
    return AttentionItem(
        75, "switch", f"Switch “{name}” is engaged {end}", effect, "SRE", "switches"
    )


def _lag(fleet: Fleet) -> list[AttentionItem]:
    lag = fleet.ingest_lag_s
    if lag is None or lag < INGEST_WARN_S:
        return []
    detail = (
        f"{fleet.waiting:,} batches wait in the stream. Lookup and this page miss the newest"
        " decisions."
    )
    return [AttentionItem(60, "alert", f"Storing is {span(lag)} behind", detail, "SRE", "ingest")]


def _late_feedback(fleet: Fleet) -> list[AttentionItem]:
    late = [service.name for service in fleet.services if service.late]
    if not late:
        return []
    # a dead collector makes every service late at once
    names = _and_more(late)
    detail = f"No outcome in {span(FEEDBACK_LATE_S)} from {names}. Their load is not known."
    return [AttentionItem(50, "alert", "Feedback is late", detail, "SRE", "services")]


def _outcomes(fleet: Fleet) -> list[AttentionItem]:
    """Return that deciders do not believe outcomes, and that they take some that nobody sealed."""
    items = []
    # each decider reads all outcomes, so the counts are no sum
    if refused := max((node.outcomes.recent_refused for node in fleet.nodes), default=0):
        why = next(node.outcomes.why for node in fleet.nodes if node.outcomes.recent_refused)
        title = "Outcomes were not believed"
        detail = (
            f"{refused:,} entries in the last minute: {why}. Give each feedback program its"
            " --outcomes-key, or find out who writes to Valkey."
        )
        # chosen: as messages between deciders that are not authentic (75)
        items.append(AttentionItem(75, "alert", title, detail, "SRE", "services"))
    if taken := max((node.outcomes.recent_unsealed for node in fleet.nodes), default=0):
        title = "Outcomes without a seal are taken"
        detail = (
            f"{taken:,} entries in the last minute, as --unsealed-outcomes says. Whoever may write"
            " to Valkey can make them up. Give each feedback program its --outcomes-key."
        )
        # chosen: below late feedback (50), as it was chosen by an operator
        items.append(AttentionItem(48, "alert", title, detail, "SRE", "services"))
    return items


def _given_up(fleet: Fleet) -> list[AttentionItem]:
    # chosen: below late feedback (50): what is given up is older than what deciders learn from
    given_up = sum(gateway.given_up for gateway in fleet.gateways)
    if not given_up:
        return []
    title = f"{given_up:,} lines of a gateway’s log were given up"
    detail = (
        "They were too many while Valkey was away, and the disk is bounded. Deciders know nothing"
        " of these outcomes."
    )
    return [AttentionItem(44, "alert", title, detail, "SRE", "services")]


def _misrouted(fleet: Fleet) -> list[AttentionItem]:
    found = fleet.misrouted
    if not found.recent_misrouted:
        return []
    # chosen: above a busy service (65): limits protect one service and another gets the load
    title = f"{found.recent_misrouted:,} requests went to another service than decided"
    detail = (
        f"The last: {found.example}. Give the gateway’s route, its cluster and the service the same"
        " name."
    )
    return [AttentionItem(73, "alert", title, detail, "SRE", "services")]


def _unknown_paths(fleet: Fleet) -> list[AttentionItem]:
    unknown, share = fleet.unknown_paths
    if unknown < FEW or share <= UNKNOWN_PATHS:
        return []
    # chosen: above late feedback (50), as these requests count for a service they may not go to
    title = f"{share:.1%} of requests have an unknown path"
    detail = (
        "No service has a prefix of it and the gateway named none, so they count for the fallback"
        " service. Add the prefix, or have the gateway send x-sluice-service."
    )
    return [AttentionItem(52, "alert", title, detail, "SRE", "services")]


def _services(fleet: Fleet, targets: dict[str, float]) -> list[AttentionItem]:
    return [
        AttentionItem(
            65,
            "alert",
            f"{load.name} is at {load.utilisation:.0%} of its capacity",
            f"It answers in {load.latency_ms:,.0f} ms, {load.error_share:.1%} errors. What is worth"
            " least is shed first.",
            "SRE",
            "services",
        )
        for load in fleet.services
        if not load.late and load.utilisation >= max(1.0, targets.get(load.name, 0.85))
    ]


def _explanations(explained: Explained | None) -> list[AttentionItem]:
    if explained is None:
        return []
    return _mismatches(explained.mismatches) + _backlog(explained)


def _mismatches(count: int) -> list[AttentionItem]:
    if not count:
        return []
    title = f"{count:,} explanation{'s' if count > 1 else ''} did not add up"
    detail = (
        "Base and contributions differ from the score that was served. They are marked on their"
        " pages."
    )
    return [AttentionItem(72, "alert", title, detail, "ML", "lookup")]


def _backlog(explained: Explained) -> list[AttentionItem]:
    # one line at most, as both findings tell of the same backlog
    if explained.stopped:
        title = "No decision was explained for a minute"
        detail = "The worker that explains has stopped or is stuck. Decisions are not affected."
        return [AttentionItem(41, "alert", title, detail, "SRE", "lookup")]
    if explained.dropped >= FEW:
        title = f"{explained.dropped:,} refusals of the last minute were not explained"
        detail = (
            "There was more to explain than time. Each is explained when somebody opens it; what"
            " customers are told comes from the deciders and is complete."
        )
        return [AttentionItem(40, "alert", title, detail, "ML", "lookup")]
    return []


def _disputes(count: int, oldest_s: float) -> list[AttentionItem]:
    if not count:
        return []
    title = f"{count:,} dispute{'s have' if count > 1 else ' has'} waited longer than a day"
    detail = (
        f"The oldest for {span(oldest_s)}. A second person finds whether the refusal was wrong."
    )
    return [AttentionItem(35, "flag", title, detail, "Policy", "disputes")]


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]
