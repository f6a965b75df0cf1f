"""Fit the tokenizers and the preprocessor on the train pairs, as the plan's values require."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flambeau_text.tokenization.custom import CustomTokenizer
from flambeau_text.tokenization.fit import fit_tokenizer
from flambeau_text.tokenization.normalization import normalize
from flambeau_text.translation.given_tokenizers import as_tokenizers, plan_values
from flambeau_text.translation.language_guard import LanguageGuard
from flambeau_text.translation.options import TranslationOptions
from flambeau_text.translation.preprocess import TranslationPreprocessor


def fit_preprocessor(
    sources: Sequence[str],
    targets: Sequence[str],
    values: Mapping[str, Any],
    options: TranslationOptions,
) -> TranslationPreprocessor:
    """Fit the preprocessor on train sentences.

    Args:
        sources: The train sources.
        targets: The train targets.
        values: The plan's values by key.
        options: Options, of which languages and case are used.
    """
    source_language, target_language = options.source_language, options.target_language
    lowercase = bool(options.lowercase)
    form = values["normalization"]
    sources, targets = ([normalize(text, form) for text in side] for side in (sources, targets))
    given = options.given_tokenizers
    if given is not None and values["tokenizer"] == plan_values(given)["tokenizer"]:
        source, target = as_tokenizers(given, lowercase, form)
        for tokenizer, texts in ((source, sources), (target, targets)):
            if isinstance(tokenizer, CustomTokenizer):
                tokenizer.check(texts)
    elif values["shared_vocab"]:
        # The rules of one language cannot split two languages.
        joint = fit_tokenizer([*sources, *targets], values, None, lowercase)
        source = target = joint
    else:
        source = fit_tokenizer(sources, values, source_language, lowercase)
        target = fit_tokenizer(targets, values, target_language, lowercase)
    return TranslationPreprocessor(
        source=source,
        target=None if target is source else target,
        max_tokens=values["max_tokens"],
        language_guard=LanguageGuard.fit(sources, targets, source_language, target_language),
    )
