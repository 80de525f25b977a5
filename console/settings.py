"""The one settings file. What differs between installations comes from the environment."""

from __future__ import annotations

from pathlib import Path

from csp.constants import NONE, SELF

import installation
from console.local import database, embedded, environment
from console.local.environment import GB
from decider.contracts.store import CELERY_PREFIX

BASE_DIR = Path(__file__).resolve().parent.parent
SLUICE_VAR = installation.data_folder()
SLUICE_KEYS = SLUICE_VAR / "keys"
SLUICE_MODELS = SLUICE_VAR / "models"

env = environment.load_environment(SLUICE_VAR)

SLUICE_REGION = env.str("SLUICE_REGION", "local")
SLUICE_ENV_NAME = env.str("SLUICE_ENV_NAME", "Demo")
# Ports that `manage.py up` listens on. Each has a variable that changes it.
SLUICE_PORTS = {
    "console": environment.read_port(env, "SLUICE_CONSOLE_PORT", 8000),
    "gateway": environment.read_port(env, "SLUICE_GATEWAY_PORT", 8080),
    "services": environment.read_port(env, "SLUICE_SERVICES_PORT", 9200),
    "postgres": environment.read_port(env, "SLUICE_POSTGRES_PORT", embedded.POSTGRES_PORT),
    "valkey": environment.read_port(env, "SLUICE_VALKEY_PORT", embedded.VALKEY_PORT),
}

_START = "Set it to your server's address, or start the embedded one with `make run`."
DATABASE_URL = environment.require_text(env, "DATABASE_URL", _START)
VALKEY_URL = environment.require_text(env, "VALKEY_URL", _START)
SECRET_KEY = environment.read_session_key(env, SLUICE_KEYS / "session.key")
DEBUG = environment.read_flag(env, "SLUICE_DEBUG")
ALLOWED_HOSTS = env.list("SLUICE_ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("SLUICE_TRUSTED_ORIGINS", [])
HTTPS = environment.read_flag(env, "SLUICE_HTTPS")
# Networks of the proxies of yours in front, which say who the client is and how it came.
environment.refuse_renamed(
    env,
    "SLUICE_BEHIND_PROXY",
    "Name the addresses of your proxies instead: SLUICE_TRUSTED_PROXIES=10.0.0.5.",
)
SLUICE_TRUSTED_PROXIES = environment.read_networks(env, "SLUICE_TRUSTED_PROXIES")

INSTALLED_APPS = [
    "console",
    "decisions",
    "explain",
    "control",
    "control.approvals",
    "rollouts",
    "monitoring",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "django_htmx",
    "csp",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "console.frame.middleware.PrivateAnswers",
    "console.frame.well_formed.WellFormed",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "console.frame.sessions.SessionLimits",
    "console.frame.middleware.SignInRequired",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "console.frame.app_looks.LooksRecorded",
]

ROOT_URLCONF = "console.urls"
WSGI_APPLICATION = "console.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# Storage

_DATABASE = environment.parse_database_url(DATABASE_URL)
DATABASES = {
    "default": {
        **_DATABASE,
        "OPTIONS": database.with_limits(_DATABASE["OPTIONS"]),
        "CONN_MAX_AGE": environment.read_whole_number(env, "SLUICE_DB_CONN_MAX_AGE", 60),  # seconds
        # a kept connection is tested before use, so that no request fails after PostgreSQL restarts
        "CONN_HEALTH_CHECKS": True,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Nothing is cached through Django: its caches keep pickles, so whoever can write to a shared one
# runs code here. The API's throttles count with plain numbers (console.api.throttles).
CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

# People

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
SESSION_COOKIE_AGE = 12 * 3600  # seconds from sign-in, whatever happens (console.frame.sessions)
SESSION_IDLE_S = 30 * 60  # seconds without activity of the person
# Seconds for which a password counts as just given, for what a stolen session must not do. Chosen:
# long enough to clear a switch and look at what follows.
REAUTHENTICATION_S = 5 * 60
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_NAME = "sluice_session"
CSRF_COOKIE_NAME = "sluice_csrf"
CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS

# What a browser may do

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_SSL_REDIRECT = HTTPS
# a year, as browsers' preload lists ask for; 0 without HTTPS, because HSTS would force HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
# hosts below the console's are not ours to decide about, so it must be asked for
SECURE_HSTS_INCLUDE_SUBDOMAINS = environment.read_flag(env, "SLUICE_HSTS_SUBDOMAINS")
# browsers' preload lists take whole domains, of which a console is one host
SILENCED_SYSTEM_CHECKS = ["security.W021"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if SLUICE_TRUSTED_PROXIES else None
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_500_000  # bytes
FILE_UPLOAD_HANDLERS = [
    "console.frame.uploads.Bounded",
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]

# Words and time

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

# Static files: served by whitenoise, hashed and compressed by `manage.py collectstatic`

STATIC_URL = "/static/"
STATIC_ROOT = SLUICE_VAR / "static"
WHITENOISE_USE_FINDERS = DEBUG
_PLAIN = "django.contrib.staticfiles.storage.StaticFilesStorage"
_HASHED = "whitenoise.storage.CompressedManifestStaticFilesStorage"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": _PLAIN if DEBUG else _HASHED},
}
MEDIA_ROOT = SLUICE_VAR / "media"

# The REST API

_PERMISSIONS = ["console.api.access.RolePermission", "console.api.access.KnownParameters"]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "console.api.access.MachineToken",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": _PERMISSIONS,
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["console.api.bodies.Json"],
    "DEFAULT_THROTTLE_CLASSES": [
        f"console.api.throttles.{name}Throttle" for name in ("Person", "Stranger", "Scope")
    ],
    # Chosen: a script may ask ten times a second; strangers, who only ever get 401, are slowed to
    # make guessing tokens hopeless; exports and heavy counts are bounded by what they cost.
    "DEFAULT_THROTTLE_RATES": {
        "user": env.str("SLUICE_API_RATE", "600/min"),
        "anon": "30/min",
        "export": "20/hour",
        "heavy": "120/min",
    },
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "console.frame.problems.problem_handler",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    # REMOTE_ADDR is the client already (console.client_address)
    "NUM_PROXIES": 0,
}
REST_KNOX = {"AUTO_REFRESH": False, "TOKEN_PREFIX": "sluice_", "AUTH_HEADER_PREFIX": "Token"}
SPECTACULAR_SETTINGS = {
    "TITLE": "Sluice",
    "VERSION": "1",
    "DESCRIPTION": (
        "The API of Sluice: why every request was admitted, deferred, batched, shed or blocked."
    ),
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SERVE_PERMISSIONS": _PERMISSIONS,
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/v1/",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "console.api.document.with_problems",
        "console.api.document.with_ticket",
    ],
}

# Background work

CELERY_BROKER_URL = VALKEY_URL
CELERY_RESULT_BACKEND = None  # tasks store their results in the database
CELERY_TASK_IGNORE_RESULT = True
# JSON and nothing else, in both directions: a pickled message would run code in the worker.
CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = CELERY_EVENT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = CELERY_RESULT_ACCEPT_CONTENT = ["json"]
# Nobody steers workers through the broker: its messages could stop them.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
# Acknowledged when done: a task whose worker dies runs again; tasks are idempotent.
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
# Seconds until a task is killed. It is asked to end a minute earlier, so that it can roll back.
# Both are well under the visibility timeout, after which a second worker would get the task.
CELERY_TASK_TIME_LIMIT = 900
CELERY_TASK_SOFT_TIME_LIMIT = 840  # a minute before
# One message at a time: a worker that explains for a minute must not sit on messages that another
# worker could take.
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# A worker process is replaced after this many tasks, which frees memory that a library leaks.
# Chosen: rare enough that nobody notices the restarts.
CELERY_WORKER_MAX_TASKS_PER_CHILD = 1000
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": CELERY_PREFIX, "visibility_timeout": 3600}
CELERY_TIMEZONE = "UTC"
# Explaining has a queue of its own, for a worker of its own: partitions or forecasts that take a
# minute would hold it up. A worker that is told no queue takes both.
CELERY_TASK_QUEUES: dict[str, dict[str, str]] = {"celery": {}, "celery-explain": {}}
CELERY_TASK_ROUTES = {
    f"explain.tasks.{name}": {"queue": "celery-explain"}
    for name in ("explain_pending", "explain_backlog", "explain_one")
}
# Schedules and expiries in seconds. A message that waited too long for a busy worker expires: the
# next one does the same work, and a queue of old messages would only delay it.
CELERY_BEAT_SCHEDULE = {
    "publish what is pending": {
        "task": "control.tasks.publish_pending",
        "schedule": 2.0,
        "options": {"expires": 10},
    },
    "explain new decisions": {
        "task": "explain.tasks.explain_pending",
        "schedule": 2.0,
        "options": {"expires": 30},
    },
    "explain what an outage left": {
        "task": "explain.tasks.explain_backlog",
        "schedule": 300.0,
        "options": {"expires": 600},
    },
    "forecast and settle": {
        "task": "explain.tasks.look_ahead",
        "schedule": 300.0,
        "options": {"expires": 120},
    },
    "compact counts": {
        "task": "decisions.tasks.compact_counts",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    "tell found wrong": {
        "task": "console.tasks.tell_found_wrong",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    "settle requests": {
        "task": "console.tasks.settle_requests",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    "tie outcomes": {
        "task": "decisions.tasks.tie_outcomes",
        "schedule": 300.0,
        "options": {"expires": 300},
    },
    "forget sign-ins": {
        "task": "console.tasks.forget_sign_ins",
        "schedule": 3600.0,
        "options": {"expires": 3600},
    },
    # the import itself tells deciders; this is for one that was killed before it had
    "publish imports": {
        "task": "control.tasks.publish_imports",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    "keep looks": {
        "task": "control.tasks.keep_looks",
        "schedule": 3600.0,
        "options": {"expires": 3600},
    },
    "anchor the audit log": {
        "task": "control.tasks.anchor_audit",
        "schedule": 600.0,
        "options": {"expires": 600},
    },
    "keep partitions": {
        "task": "decisions.tasks.keep_partitions",
        "schedule": 300.0,
        "options": {"expires": 300},
    },
}
# Who looked at whose data: thirteen months, so that a yearly audit finds the whole year.
SLUICE_KEEP_LOOKS_DAYS = environment.read_whole_number(env, "SLUICE_KEEP_LOOKS_DAYS", 396, low=31)
# Where the end of the audit log is anchored: a file ("" is one in SLUICE_VAR), and who gets a copy.
SLUICE_AUDIT_ANCHORS = env.str("SLUICE_AUDIT_ANCHORS", "").strip()
SLUICE_AUDIT_ANCHOR_URL = env.str("SLUICE_AUDIT_ANCHOR_URL", "").strip()
SLUICE_KEEP_DAYS = environment.read_whole_number(env, "SLUICE_KEEP_DAYS", 30, low=1)
# Bytes that the database, logs and the embedded Valkey may take together. At least twice what must
# be left before old days are dropped (control.disk).
SLUICE_DISK_BUDGET = GB * environment.read_whole_number(env, "SLUICE_DISK_GB", 20, low=8)

# Logs: one line each, to standard output

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "filters": {"own faults": {"()": "console.frame.log_lines.OwnFaults"}},
    "handlers": {
        "stdout": {
            "class": "logging.StreamHandler",
            "filters": ["own faults"],
            "stream": "ext://sys.stdout",
            "formatter": "line",
        }
    },
    "root": {"handlers": ["stdout"], "level": env.str("SLUICE_LOG_LEVEL", "INFO").upper()},
    "loggers": {"django.server": {"level": "WARNING"}},
}
