"""Tags and filters for templates: icons, action chips, states, and `console.display.format`."""

from __future__ import annotations

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from console.display import format as fmt
from console.frame import layout, roles
from decider.contracts.config import version_text
from decider.contracts.vocabulary import Action

register = template.Library()

_STATES = ("ok", "warn", "bad", "off")


@register.simple_tag
def icon(name: str, css: str = "") -> SafeString:
    """Return one icon of the sprite (`partials/icons.html`).

    It is decoration: the word beside it carries the meaning, so screen readers skip it.
    """
    return format_html(
        '<svg class="i{}" aria-hidden="true"><use href="#i-{}"/></svg>',
        f" {css}" if css else "",
        name,
    )


@register.simple_tag
def action_chip(action: int | str | Action, look: str = "", text: str = "") -> SafeString:
    """Return an action as colour, glyph and word.

    `look` is empty, `plain` (no ground) or `big`; `text` replaces the word.
    """
    act = fmt.action(action)
    return format_html(
        '<span class="act act-{0}{1}">{2}{3}</span>',
        act.word,
        f" {look}" if look else "",
        icon(act.word),
        text or act.word.capitalize(),
    )


@register.simple_tag
def state(level: str, text: object) -> SafeString:
    """Return a state as a shape and `text`; `level` is ok, warn, bad or off.

    Raise TemplateSyntaxError for another level.
    """
    if level not in _STATES:
        raise template.TemplateSyntaxError(f"a state is one of {', '.join(_STATES)}, not {level!r}")
    return format_html('<span class="st st-{}">{}{}</span>', level, icon(level), text)


@register.simple_tag
def tag(text: object, kind: str = "") -> SafeString:
    """Return a small label; `kind` is empty, warn or accent."""
    return format_html('<span class="tag{}">{}</span>', f" tag-{kind}" if kind else "", text)


@register.simple_tag
def who_can(permission: str) -> str:
    """Return which roles have a permission, for the description of a disabled button."""
    return roles.who_can(permission)


@register.simple_tag(takes_context=True)
def shell(context: template.Context) -> layout.PageFrame:
    """Return what `base.html` shows around every page (`console.frame.layout`)."""
    return layout.page_frame(context.get("request"))


for _filter in (
    fmt.action_word,
    fmt.stage_label,
    fmt.tier_word,
    fmt.number,
    fmt.low_to_high,
    fmt.percent,
    fmt.risk2,
    fmt.signed,
    fmt.utc_time,
    fmt.utc_moment,
    version_text,
    fmt.utc_minute,
    fmt.utc_ms,
    fmt.utc_datetime,
    fmt.iso,
    fmt.span,
    fmt.whole_left,
    fmt.bucket_left,
    fmt.plan_figure,
    fmt.ago,
    fmt.duration_ms,
    fmt.decision_id,
):
    register.filter(_filter.__name__, _filter)
