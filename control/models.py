"""What people decide, kept in PostgreSQL: tenants and apps, config versions, switch flips, grants
of roles, and the audit log.

The invariants that matter most also live in the database, as triggers in the first migration: the
audit log can only be appended to, and a config version cannot be committed without its audit row.
"""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from control.audit.actors import ROLE_LABELS
from decider.contracts.config import version_text
from decider.contracts.store import Profile
from decider.contracts.vocabulary import Tier

TIER_CHOICES = [(int(t), t.word.capitalize()) for t in Tier]


class Tenant(models.Model):
    """A customer organisation; its apps share a fair share."""

    id = models.CharField(primary_key=True, max_length=128)
    name = models.CharField(max_length=200)

    def __str__(self) -> str:
        return self.name


class App(models.Model):
    """A client application and what is known of it apart from its behaviour. Deciders get these
    facts as a `store.Profile`.
    """

    id = models.CharField(primary_key=True, max_length=128)
    name = models.CharField(max_length=200)
    # protected: deleting a tenant must not take its apps along
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="apps")
    tier = models.PositiveSmallIntegerField(choices=TIER_CHOICES)
    created_at = models.DateTimeField(default=timezone.now)
    verified = models.BooleanField(default=False)
    cohort_prior = models.FloatField(
        default=0.05, validators=[MinValueValidator(0), MaxValueValidator(1)]
    )
    abuse_history = models.PositiveIntegerField(default=0)
    chargeback_history = models.PositiveIntegerField(default=0)
    false_throttle_history = models.PositiveIntegerField(default=0)
    """False throttles that the app had when it was registered."""
    found_wrong = models.PositiveIntegerField(default=0, db_default=0)
    """Refusals of the app that were found wrong here lately, as last sent to the deciders
    (`profiles.tell_found_wrong`).
    """
    imported = models.ForeignKey(
        "AppImport", on_delete=models.PROTECT, related_name="+", null=True, blank=True
    )
    """The import that added or changed it last."""

    class Meta:
        # validators only run in forms; these constraints also stop bulk updates and SQL
        constraints = [
            models.CheckConstraint(condition=Q(tier__lte=int(max(Tier))), name="app_tier_known"),
            models.CheckConstraint(
                condition=Q(cohort_prior__gte=0, cohort_prior__lte=1), name="app_prior_is_share"
            ),
        ]
        permissions = [
            ("reset_bucket", "May have the deciders fill a bucket of an app"),
            ("import_apps", "May import apps and tenants"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def profile(self) -> Profile:
        """The profile that deciders get of this app."""
        return Profile(
            app=self.id,
            name=self.name,
            tenant=self.tenant_id,
            tier=self.tier,
            # deciders count from 1970
            created_at=max(0.0, self.created_at.timestamp()),
            verified=self.verified,
            cohort_prior=self.cohort_prior,
            abuse_history=self.abuse_history,
            chargeback_history=self.chargeback_history,
            # one number for deciders: it makes no difference to them where a refusal was found
            # wrong
            false_throttle_history=self.false_throttle_history + self.found_wrong,
        )


class AppImport(models.Model):
    """An import of apps (`control.directory.app_import`)."""

    at = models.DateTimeField()
    by = models.CharField(max_length=200)
    digest = models.CharField(max_length=64)
    """SHA-256 of the file."""
    rows = models.PositiveIntegerField()
    added = models.PositiveIntegerField(default=0)
    changed = models.PositiveIntegerField(default=0)
    published_at = models.DateTimeField(null=True, blank=True)
    """When all deciders' profiles of its apps had been sent; empty until then."""

    class Meta:
        ordering = ["-pk"]
        default_permissions = ()
        indexes = [
            models.Index(fields=["at"], condition=Q(published_at=None), name="imports_to_publish")
        ]

    def __str__(self) -> str:
        return f"import {self.pk}"


class ConfigVersion(models.Model):
    """One config document as it was signed. Only `published_at` ever changes after it is
    written.
    """

    version = models.PositiveBigIntegerField(primary_key=True)
    payload = models.BinaryField()
    """msgpack of `decider.contracts.config.Config`."""
    signed = models.BinaryField()
    """The payload with its signature, as published (`decider.contracts.config.Signed`)."""
    made_at = models.DateTimeField()
    """When the change was made; the propagation time counts from here."""
    by = models.CharField(max_length=200)
    reason = models.CharField(max_length=1000)
    published_at = models.DateTimeField(null=True, blank=True)
    """When Valkey accepted the document; empty until then."""
    loosens = models.BooleanField(null=True)
    """Whether the change needed a second person; empty in versions of before four eyes."""
    change = models.CharField(max_length=64, blank=True, db_default="")
    """Digest of the change (`control.config.parts`) where it needed one, or had a request."""
    alone = models.BooleanField(default=False, db_default=False)
    """Whether it needed one and was made in single-person mode."""
    # one to one: an approval is for one change, once
    request = models.OneToOneField(
        "approvals.Request", on_delete=models.PROTECT, related_name="version", null=True, blank=True
    )
    review = models.OneToOneField(
        "approvals.Review", on_delete=models.PROTECT, related_name="version", null=True, blank=True
    )

    class Meta:
        ordering = ["-version"]
        # nobody adds, changes or deletes one by hand: `changes.make_version` is the only way
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"config {version_text(self.version)}"


class SwitchFlip(models.Model):
    """One time a kill switch was engaged, from its beginning to its end."""

    name = models.CharField(max_length=64)
    """`decider.contracts.config.SwitchName`."""
    reason = models.CharField(max_length=1000)
    by = models.CharField(max_length=200)
    engaged_at = models.DateTimeField()
    until = models.DateTimeField(null=True, blank=True)
    """When it ends by itself; empty: until someone clears it."""
    engaged_version = models.ForeignKey(ConfigVersion, on_delete=models.PROTECT, related_name="+")
    ended_at = models.DateTimeField(null=True, blank=True)
    ended_by = models.CharField(max_length=200, blank=True)
    """Empty when it ended by itself."""
    ended_reason = models.CharField(max_length=1000, blank=True)
    ended_version = models.ForeignKey(
        ConfigVersion, on_delete=models.PROTECT, related_name="+", null=True, blank=True
    )

    class Meta:
        ordering = ["-engaged_at"]
        default_permissions = ("view",)
        permissions = [("engage_switch", "May engage, extend and clear kill switches")]
        constraints = [
            # two open flips of a switch would leave it unclear which one a clearing ends
            models.UniqueConstraint(
                fields=["name"], condition=Q(ended_at=None), name="one_open_flip_per_switch"
            ),
            models.CheckConstraint(
                condition=Q(until=None) | Q(until__gt=F("engaged_at")),
                name="flip_ends_after_it_began",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} from {self.engaged_at:%Y-%m-%d %H:%M:%S}"

    def end(self, now: datetime) -> datetime | None:
        """Return when it ended, by hand or by itself; None while it is engaged."""
        if self.ended_at is not None:
            return self.ended_at
        return self.until if self.until is not None and self.until <= now else None


class AuditEntry(models.Model):
    """One entry of the audit log, which is a hash chain (`control.audit.chain`). The database
    refuses to change or delete an entry.
    """

    # no sequence: it would leave gaps where a transaction was rolled back
    seq = models.BigIntegerField(primary_key=True)
    """1, 2, 3 ... without gaps."""
    at = models.DateTimeField()
    actor = models.CharField(max_length=200)
    actor_login = models.CharField(max_length=200, blank=True)
    actor_role = models.CharField(max_length=200)
    action = models.CharField(max_length=64)
    """Machine name, "noun.verb": switch.engage, model.make_live."""
    subject = models.CharField(max_length=200)
    summary = models.CharField(max_length=500)
    """What was done, a sentence without its actor: "engaged the switch “All ML” until 14:00 UTC".
    """
    reason = models.CharField(max_length=1000)
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)
    config_version = models.ForeignKey(
        ConfigVersion,
        on_delete=models.PROTECT,
        related_name="audit",
        null=True,
        blank=True,
        db_column="config_version",
    )
    prev_hash = models.CharField(max_length=64)
    """Hash of the entry before; 64 zeros for the first."""
    hash = models.CharField(max_length=64, unique=True)

    class Meta:
        ordering = ["-seq"]
        verbose_name_plural = "audit entries"
        # reading is a permission of its own, and the database refuses changes
        default_permissions = ()
        permissions = [
            ("view_audit", "May read the audit log"),
            ("view_looks", "May see who looked at an app's data"),
        ]
        indexes = [
            # looks of before they had a log of their own, which an app's page of looks reads
            models.Index(
                fields=["subject", "actor_login", "at"],
                condition=Q(action="app.look"),
                name="audit_looks",
            ),
            # an empty data-access log goes on where the month that was dropped last ended
            models.Index(
                fields=["seq"], condition=Q(action="looks.checkpoint"), name="audit_checkpoints"
            ),
            # how often someone was refused lately, asked at each refusal
            models.Index(
                fields=["actor_login", "at"],
                condition=Q(action="access.denied"),
                name="audit_denials",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.seq}: {self.actor} {self.summary}"


class Look(models.Model):
    """One entry of the data-access log: someone looked at an app's data. A hash chain of its own
    (`control.audit.app_looks`), partitioned by month. The database refuses to change or delete an
    entry; a month is dropped whole, after a signed checkpoint (`control.audit.look_months`).
    """

    pk = models.CompositePrimaryKey("at", "seq")
    seq = models.BigIntegerField()
    """1, 2, 3 ... without gaps."""
    at = models.DateTimeField()
    """By the database's clock; never before the entry before."""
    actor = models.CharField(max_length=200)
    actor_login = models.CharField(max_length=200, blank=True)
    actor_role = models.CharField(max_length=200)
    app = models.CharField(max_length=128, blank=True)
    """The app's id, or `app_looks.EVERY_APP`."""
    what = models.CharField(max_length=120)
    """Follows "looked at": the page, decision dec_01…"""
    ticket = models.CharField(max_length=40, blank=True)
    prev_hash = models.CharField(max_length=64)
    """Hash of the entry before; 64 zeros for the first."""
    hash = models.CharField(max_length=64)

    class Meta:
        db_table = "control_look"
        ordering = ["-at", "-seq"]
        # read with the permission to see looks, written by `app_looks.record_all` alone
        default_permissions = ()
        indexes = [models.Index(fields=["app", "at"], name="looks_of_app")]

    def __str__(self) -> str:
        return f"{self.seq}: {self.actor} looked at {self.what} of app {self.app}"


class AnchorReport(models.Model):
    """How anchoring the audit log went last, in one row (`control.audit.anchoring`). The anchors
    themselves are outside the database.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    anchored_at = models.DateTimeField(null=True)
    """When the end of the log was last known to be anchored."""
    sent = models.PositiveIntegerField(default=0)
    """Lines of the file that were sent."""
    waiting = models.PositiveIntegerField(default=0)
    """Lines that wait to be sent."""
    failing_since = models.DateTimeField(null=True)
    why = models.CharField(max_length=300, blank=True)

    class Meta:
        default_permissions = ()
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_anchor_report")]

    def __str__(self) -> str:
        return self.why or "anchored"


class AppNote(models.Model):
    """What someone wrote down about an app for their colleagues. Kept as written: the database
    refuses changes.
    """

    # no foreign key, for apps that nobody registered
    app = models.CharField(max_length=128)
    """The app's id; an app nobody registered can have notes too."""
    text = models.CharField(max_length=1000)
    by = models.CharField(max_length=200)
    by_role = models.CharField(max_length=200)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-at", "-pk"]
        default_permissions = ("add", "view")
        indexes = [models.Index(fields=["app", "-at"], name="app_notes")]

    def __str__(self) -> str:
        return f"note of {self.by} about {self.app}"


class Installation(models.Model):
    """What an installation is told apart from its config document: one row, or none yet."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    gateways = models.JSONField(default=dict)
    """Kind of each gateway by its name."""
    keep_days = models.PositiveIntegerField(null=True, blank=True)
    """Days that decisions are kept; empty: as the settings say."""

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(condition=Q(id=1), name="one_installation"),
            models.CheckConstraint(
                condition=Q(keep_days=None) | Q(keep_days__gte=1), name="installation_keeps_a_day"
            ),
        ]

    def __str__(self) -> str:
        return "this installation"


class AppliedFile(models.Model):
    """A `sluice.yaml` that was applied (`control.declared`). The database refuses to change one."""

    text = models.TextField()
    digest = models.CharField(max_length=64)
    """SHA-256 of the text."""
    owned = models.JSONField()
    """What the file owned then and the values that came into force: [[part, value], ...]."""
    at = models.DateTimeField()
    by = models.CharField(max_length=200)
    reason = models.CharField(max_length=1000)
    config_version = models.ForeignKey(
        ConfigVersion, on_delete=models.PROTECT, related_name="+", null=True, blank=True
    )
    """The version that it made; empty when no decider had to be told."""

    class Meta:
        ordering = ["-pk"]
        default_permissions = ()
        permissions = [
            ("view_declaration", "May see what the installation is declared to be"),
            ("apply_declaration", "May apply a file that declares the installation"),
        ]

    def __str__(self) -> str:
        return f"file {self.digest[:12]} of {self.at:%Y-%m-%d %H:%M:%S}"


class Grant(models.Model):
    """One time a role was given to a person, until it was taken. The database refuses to delete a
    grant, and to change anything of it but its end, once.
    """

    # protected: people are deactivated and never deleted, so who gave what stays known
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="grants"
    )
    role = models.CharField(max_length=64)
    """Name of a Django group."""
    granted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", null=True, blank=True
    )
    """Empty when nobody signed in gave it: someone at a shell, or sign-in itself."""
    by = models.CharField(max_length=200)
    by_login = models.CharField(max_length=200, blank=True)
    at = models.DateTimeField()
    reason = models.CharField(max_length=1000)
    taken_at = models.DateTimeField(null=True, blank=True)
    taken_by = models.CharField(max_length=200, blank=True)
    taken_login = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["-at", "-pk"]
        default_permissions = ()
        permissions = [
            ("manage_people", "May make people and give roles"),
            ("view_people", "May see who has which role"),
            ("review_access", "May record a review of everyone's roles"),
        ]
        constraints = [
            # two open grants of a role would leave it unclear who gave it
            models.UniqueConstraint(
                fields=["person", "role"], condition=Q(taken_at=None), name="one_open_grant"
            ),
            models.CheckConstraint(
                condition=Q(taken_at=None) | Q(taken_at__gte=F("at")), name="grant_ends_after_it"
            ),
        ]
        # who gave whom a role lately, asked at each approval
        indexes = [models.Index(fields=["granted_by", "person", "at"], name="grants_by_whom")]

    def __str__(self) -> str:
        return f"{self.role} for {self.person_id} by {self.by}"

    @property
    def role_label(self) -> str:
        """Return the role in words."""
        return ROLE_LABELS.get(self.role, self.role)


class SignInTry(models.Model):
    """Wrong tries to sign in under one key (`control.people.guessing`). Nobody's decision, so it
    changes without an entry in the audit log.
    """

    key = models.CharField(primary_key=True, max_length=32)
    """Keyed digest of an address and a name, or of an address."""
    tries = models.PositiveIntegerField(default=0)
    """Wrong ones since the last right one."""
    at = models.DateTimeField()
    """When the last one was."""
    next_at = models.DateTimeField()
    """Before then, nothing is tried."""
    signed_in_at = models.DateTimeField(null=True, blank=True)
    """When the name last signed in from the address."""

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["at"], name="sign_in_tries_at")]

    def __str__(self) -> str:
        return f"{self.tries} tries of {self.key}"
