"""Where RTO begins is seen in what is shown of a row."""

from __future__ import annotations

import pytest

from safekey_peft import SafeKeyConfig, SafeKeyExampleEncoder
from safekey_peft.data.readers import SourceRow
from safekey_peft.inspection.survey import InspectedSet, Survey
from safekey_peft.inspection.views import RowView, TokenPart
from tests.tokenizers import tokenizer_with_template

SAFE = "<think>\nThe user asks how to brew it. No.\n</think>\n\nSorry, I can't help."
HARMFUL = "<think>\nThe user asks. Sure. First warm it.\n</think>\n\nFirst stir it twice."


def survey_of(template: str, rto_from: str, *harmful: str) -> tuple[Survey, list[RowView]]:
    config = SafeKeyConfig(rto=True, rto_from=rto_from)
    encoder = SafeKeyExampleEncoder(tokenizer_with_template("byte_bpe", template), config)
    values = [{"query": "Brew?", "response": SAFE, "harmful_response": text} for text in harmful]
    sources = [SourceRow(f"rows.jsonl:{number}", value, None) for number, value in enumerate(values, 1)]
    survey = Survey([InspectedSet("rows.jsonl", lambda: sources)], encoder)
    return survey, list(survey)


@pytest.mark.parametrize(("rto_from", "first"), [("divergence", " Sure. First warm it."), ("answer", "First stir it")])
@pytest.mark.parametrize("template", ["r1_distill", "qwen3", "gpt_oss"])
def test_text_before_the_first_position_is_shown_without_loss(template: str, rto_from: str, first: str) -> None:
    _, (view,) = survey_of(template, rto_from, HARMFUL)
    segment = next(example for example in view.examples if example.kind == "rto").segments[0]
    runs = [(part, "".join(segment.pieces[start:end])) for part, start, end in segment.runs()]
    at = next(index for index, (part, _) in enumerate(runs) if part == TokenPart.RTO)
    assert runs[at][1].lstrip("\n").startswith(first)
    assert runs[at - 1][0] == TokenPart.SILENT and "The user asks." in runs[at - 1][1]
    assert runs[at - 2][0] == TokenPart.QUERY and "The user" not in runs[at - 2][1]


def test_rows_that_lose_their_rto_example_are_counted_and_named() -> None:
    survey, views = survey_of("r1_distill", "answer", HARMFUL, "<think>\nSure. First warm it.")
    assert survey.totals.report.examples_dropped == {"no_rto_position": 1}
    assert [[reason for reason, _ in view.faults] for view in views] == [[], ["no_rto_position"]]
    assert [example.kind for example in views[1].examples] == ["sft"]
