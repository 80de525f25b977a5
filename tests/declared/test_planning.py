"""A file owns what it names; what the console changed since is a conflict, never overwritten
unasked.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from control.declared import export, parts, planning, reading
from control.declared.form import Entry, Plan, Service, Tenant
from control.declared.parts import Parts, Stored
from decider.contracts import config as document
from decider.contracts import defaults
from decider.contracts.config import Config, ListEntry, Override, Switch

STORED = Stored(tenants={"acme": "Acme Ltd"}, gateways={"edge": "envoy"}, keep_days=30)


def in_force(config: Config | None = None, stored: Stored = STORED) -> Parts:
    return parts.parts_in_force(config or defaults.config(), stored)


def a_service(**fields: object) -> Service:
    return Service(**({"routes": ["/a"], "capacity": 10.0, "latency_ms": 5.0} | fields))


names = st.sampled_from(["orders", "ledger", "a.b", "no", "1e3", "x-y_z", "404"])
positive = st.floats(0.001, 1e9) | st.integers(1, 10**6).map(float)
shares = st.floats(0.01, 1.0)
endpoints = st.builds(
    lambda cost, batch, sign_in: document.EndpointPolicy("GET", "/x", cost, batch, sign_in),
    positive,
    st.sampled_from(["", "POST /x:batch"]),
    st.none() | st.booleans(),
)
services = st.builds(
    lambda capacity, latency, target, found: {
        "capacity": capacity,
        "latency_ms": latency,
        "target": target,
        "endpoints": [
            structs.replace(one, template=f"/x/{number}") for number, one in enumerate(found)
        ],
    },
    positive,
    positive,
    shares,
    st.lists(endpoints, max_size=3),
)
entries = st.builds(
    lambda verdict, kind, subject: ListEntry(verdict=verdict, kind=kind, subject=subject),
    st.sampled_from(parts.VERDICTS),
    st.sampled_from(["app", "tenant"]),
    names,
)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    start = defaults.config()
    found = draw(st.dictionaries(names, services, min_size=1, max_size=4))
    tiers = [
        structs.replace(tier, rate=draw(positive), rank_from=draw(shares)) for tier in start.tiers
    ]
    lists = {(e.verdict, e.kind, e.subject): e for e in draw(st.lists(entries, max_size=4))}
    return structs.replace(
        start,
        services=[
            document.Service(name=name, prefixes=[f"/{number}"], **fields)
            for number, (name, fields) in enumerate(found.items())
        ],
        tiers=tiers,
        tenants=[document.TenantPolicy(t, draw(positive)) for t in draw(st.sets(names))],
        lists=list(lists.values()),
        unknown_tier=draw(st.integers(0, 3)),
        sampling=document.Sampling(admit=draw(shares)),
    )


@given(configs())
def test_an_export_reads_back_as_what_is_in_force(config: Config) -> None:
    present = in_force(config)
    text = export.write(parts.declaration_of(present))
    assert parts.parts_of(reading.read(text)) == present
    # and changes nothing
    assert planning.make_plan(present, present, {}, None).changes == ()
    assert in_force(parts.with_parts(config, present, [])) == present


@given(configs(), configs())
def test_applying_a_file_makes_exactly_what_it_names(before: Config, after: Config) -> None:
    wanted = in_force(after, Stored())
    last = in_force(before, Stored())
    plan = planning.make_plan(wanted, last, last, None)
    made = parts.with_parts(before, wanted, plan.gone)
    found = in_force(made, Stored())
    # a tenant that the file no longer names has the usual weight
    assert {part: value for part, value in found.items() if value != wanted.get(part)} == {}
    assert wanted.keys() <= {*found} | {p for p in wanted if wanted[p] == Tenant(name=p[-1])}
    assert planning.make_plan(wanted, {**found, **wanted}, wanted, None).changes == ()


def test_what_no_file_names_stays() -> None:
    config = defaults.config()
    ending = ListEntry(verdict="block", kind="app", subject="app_9", until=2e9)
    held = structs.replace(
        config,
        switches=[Switch("observe_only")],
        overrides=[Override(id="o1", kind="app", subject="app_1", until=2e9, multiplier=2.0)],
        lists=[ending, ListEntry(verdict="allow", kind="app", subject="app_2")],
    )
    named = parts.parts_of(reading.read("sluice: 1\nservices: {}\nlists: {}\n"))
    assert named == {}
    assert parts.with_parts(held, named, []) == held
    assert ("lists", "block", "app", "app_9") not in in_force(held)
    removed = parts.with_parts(held, {}, [("lists", "allow", "app", "app_2")])
    assert removed.lists == [ending]


SERVICE = ("services", "orders")


def test_what_the_console_changed_since_the_last_apply_is_a_conflict() -> None:
    applied, now, wanted = (a_service(capacity=float(c)) for c in (10, 20, 30))
    plan = planning.make_plan({SERVICE: wanted}, {SERVICE: now}, {SERVICE: applied}, None)
    assert [one.says() for one in plan.conflicts] == [
        "service orders was changed in the console (capacity: 10, now 20); the file has another"
        " value"
    ]
    for take, effective, changes in (("file", wanted, 1), ("console", now, 0)):
        plan = planning.make_plan({SERVICE: wanted}, {SERVICE: now}, {SERVICE: applied}, take)
        assert (plan.effective[SERVICE], len(plan.changes)) == (effective, changes)


def test_a_change_in_the_console_that_the_file_makes_too_is_no_conflict() -> None:
    applied, now = a_service(capacity=10.0), a_service(capacity=20.0)
    plan = planning.make_plan({SERVICE: now}, {SERVICE: now}, {SERVICE: applied}, None)
    assert (plan.conflicts, plan.changes) == ((), ())


def test_what_the_file_no_longer_names_goes_and_a_plan_stays() -> None:
    plan_of = Plan(rate=1.0, burst=2.0, quota_per_day=3.0)
    last = {SERVICE: a_service(), ("tiers", "free"): plan_of}
    plan = planning.make_plan({}, last, last, None)
    assert [(one.part, one.verb) for one in plan.changes] == [(SERVICE, "remove")]
    assert plan.released == (("tiers", "free"),)
    # what the console removed meanwhile is no conflict: both want it gone
    assert planning.make_plan({}, {}, last, None).changes == ()


def test_a_part_that_the_console_changed_and_the_file_dropped_is_a_conflict() -> None:
    last, now = {SERVICE: a_service()}, {SERVICE: a_service(capacity=99.0)}
    plan = planning.make_plan({}, now, last, None)
    assert plan.conflicts[0].says().endswith("the file no longer names it")
    assert planning.make_plan({}, now, last, "console").changes == ()


def test_each_change_is_told_in_lines_that_name_the_leaf() -> None:
    change = planning.Change(
        SERVICE, a_service(), a_service(capacity=12.5, target=0.5, routes=["/a", "/b"])
    )
    assert (change.verb, change.name) == ("change", "service orders")
    assert change.lines() == [
        "routes: /a, becomes /a, /b",
        "capacity: 10, becomes 12.5",
        "target: 0.5",
    ]
    entry = planning.Change(("lists", "block", "app", "a"), None, Entry(app="a"))
    assert (entry.verb, entry.name, entry.lines()) == ("add", "block list: app a", [])


def test_a_plan_with_its_tiers_defaults_written_out_is_the_same_plan() -> None:
    usual = defaults.TIERS[0]
    text = (
        "sluice: 1\ntiers:\n  free:\n"
        f"    rate: {usual.rate}\n    burst: {usual.burst}\n"
        f"    quota_per_day: {usual.quota_per_day}\n    weight: {usual.weight}\n"
        f"    headroom_to: {usual.headroom_to}\n"
    )
    assert parts.parts_of(reading.read(text)) == {("tiers", "free"): in_force()["tiers", "free"]}
