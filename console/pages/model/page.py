"""What a model uses, feature by feature: everything on the page."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from django.http import Http404
from django.urls import reverse

from decider.contracts.artifact import ArtifactError
from decider.contracts.features import FEATURES, INDEX
from decider.contracts.vocabulary import Tier
from explain.shap import importance, model_files

# Hex digits of a model's digest in the address: 48 bits tell the models of one installation apart.
DIGITS = 12


@dataclass(frozen=True, slots=True)
class Choice:
    """A link that changes one choice and keeps the others."""

    label: str
    href: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """A feature's row, with the link that shows its dependence."""

    row: importance.FeatureImportance
    href: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class ModelPage:
    """Everything on the page."""

    headline: str
    model: str
    sample: importance.ExplainedSample
    standing_for: float
    """Decisions of the traffic that the sample stands for."""
    models: tuple[Choice, ...]
    tiers: tuple[Choice, ...]
    rows: tuple[FeatureRow, ...]
    limit: float
    dependence: importance.Dependence | None


def model_page(model: str, tier: str, feature: str) -> ModelPage:
    """Return the page for a model, a tier and a feature.

    `model` is the beginning of a digest, `tier` a word, `feature` a name. If empty, they mean the
    most used model, all tiers, the most important feature. The page of a model without recent
    explanations is empty. Raise Http404 for an unknown tier or feature.
    """
    known = importance.list_recent_models()
    digest = next((d for d in known if d[:DIGITS] == model[:DIGITS] or not model), "")
    level = next((t for t in Tier if t.word == tier), None)
    if tier and level is None:
        words = ", ".join(t.word for t in Tier)
        raise Http404(f"“{tier[:20]}” is not a tier. The tiers are {words}.")
    if feature and feature not in INDEX:
        raise Http404(f"This installation has no feature “{feature[:40]}”.")
    return _page(known, digest, level, feature)


def _page(known: list[str], digest: str, tier: Tier | None, feature: str) -> ModelPage:
    """Put the page together for choices that are known to exist."""
    found = importance.sample_decisions(digest, None if tier is None else int(tier))
    ranked = importance.rank_features(found)
    name = feature or (ranked[0].feature.name if ranked else "")
    now = {
        "model": digest[:DIGITS],
        "tier": tier.word if tier is not None else "",
        "feature": feature,
    }

    def link(**change: str) -> str:
        chosen = {key: value for key, value in {**now, **change}.items() if value}
        return f"{reverse('model-explanations')}{'?' + urlencode(chosen) if chosen else ''}"

    return ModelPage(
        headline=_headline(ranked, tier),
        model=_name(digest),
        sample=found,
        standing_for=float(found.weights.sum()),
        models=tuple(Choice(_name(d), link(model=d[:DIGITS]), d == digest) for d in known),
        tiers=(
            Choice("All tiers", link(tier=""), tier is None),
            *(Choice(t.word.capitalize(), link(tier=t.word), t == tier) for t in Tier),
        ),
        rows=tuple(
            FeatureRow(
                row, link(feature=row.feature.name) + "#dependence", row.feature.name == name
            )
            for row in ranked
        ),
        limit=importance.find_plot_limit(found),
        dependence=importance.plot_dependence(found, FEATURES[INDEX[name]])
        if name and len(found)
        else None,
    )


def _headline(ranked: tuple[importance.FeatureImportance, ...], tier: Tier | None) -> str:
    """Name the two features that move the risk most."""
    if not ranked:
        return "Nothing was explained in the last day"
    among = f" for {tier.word} tier" if tier is not None else ""
    first = [f"“{row.feature.label}”" for row in ranked[:2]]
    return f"{' and '.join(first)} move{'s' if len(first) == 1 else ''} the risk most{among}"


def _name(digest: str) -> str:
    """Return the model's name, or the beginning of its digest when its file is not here."""
    try:
        return model_files.load_artifact(digest).name if digest else ""
    except ArtifactError:
        return digest[:DIGITS]
