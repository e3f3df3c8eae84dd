"""Prompts and tags: templates are filled literally, and a trace is a trace only where its format is beyond doubt."""

import pytest

from tracelift.tasks.prompts import (
    BASELINE,
    EXECUTOR,
    PLANNER,
    asks_for_expression,
    extract_trace,
    load_template,
    render,
    use_chat,
)


@pytest.mark.parametrize(
    ("text", "trace"),
    [
        ("<reasoning>a</reasoning>", "a"),
        ("  <reasoning>\n a\nb \n</reasoning> trailing words", "a\nb"),
        ("before <reasoning>x < 3 and <b>y</b></reasoning>", "x < 3 and <b>y</b>"),
        ("", None),
        ("a", None),
        ("<reasoning>a", None),  # cut off by the token limit
        ("a</reasoning>", None),
        ("</reasoning>a<reasoning>", None),
        ("<reasoning></reasoning>", None),
        ("<reasoning> \n </reasoning>", None),
        ("<reasoning>a</reasoning><reasoning>b</reasoning>", None),
        ("<reasoning>a<reasoning>b</reasoning>", None),
        ("<reasoning>a</reasoning>b</reasoning>", None),
        ("<Reasoning>a</Reasoning>", None),
    ],
)
def test_extract_trace(text, trace):
    assert extract_trace(text) == trace


def test_a_trace_is_measured_without_the_blanks_around_it():
    assert extract_trace("<reasoning>  abc  </reasoning>", 3) == "abc"
    assert extract_trace("<reasoning>abcd</reasoning>", 3) is None


def test_braces_and_tags_in_a_problem_are_left_alone():
    text = render(EXECUTOR["math"], problem="f{0} {trace} %s {problem}", trace="{x} {{y}}")
    assert "f{0} {trace} %s {problem}" in text and "{x} {{y}}" in text


def test_the_baseline_prompt_is_the_executor_s_without_the_trace():
    """The arms must differ in the trace and its announcement alone, or uplift would measure the wording."""
    for kind in BASELINE:
        with_trace = render(EXECUTOR[kind], problem="PROBLEM", trace="TRACE")
        baseline = render(BASELINE[kind], problem="PROBLEM")
        lines = with_trace.splitlines()
        last = baseline.splitlines()[-1]
        assert "TRACE" in with_trace and "TRACE" not in baseline and "PROBLEM" in baseline
        assert lines[-1] == last  # both end in the same request
        assert with_trace.endswith("\n") == baseline.endswith("\n")


def test_the_math_prompts_can_ask_for_an_expression_and_no_other_prompt_changes():
    with_trace, baseline = (asks_for_expression(kind["math"]) for kind in (EXECUTOR, BASELINE))
    for asked, number in ((with_trace, EXECUTOR["math"]), (baseline, BASELINE["math"])):
        assert "final number" in number and "final number" not in asked and "the final answer in LaTeX" in asked
    assert with_trace.splitlines()[-2:] == baseline.splitlines()[-2:], "both arms end in the same request"
    for other in (EXECUTOR["demo"], BASELINE["code"], "{problem} Reply with the final number and nothing else."):
        assert asks_for_expression(other) == other


def test_planner_prompts_ask_for_tags_and_forbid_the_result():
    for kind in ("math", "code"):
        text = PLANNER[kind]
        assert "<reasoning>" in text and "</reasoning>" in text and "Do not" in text


def test_a_user_s_template_file(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("Q: {problem}\nset {{1, 2}}\n")
    assert render(load_template(str(path), PLANNER, ("problem",)), problem="x") == "Q: x\nset {1, 2}\n"
    for text, said in [
        ("no field", "needs exactly the fields {problem}"),
        ("{problem} {trace}", "needs exactly"),
        ("{problem} {}", "needs exactly"),
        ("{problem.__class__}", "needs exactly"),
        ("{problem", "literal braces twice"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            load_template(str(path), PLANNER, ("problem",))
    with pytest.raises(FileNotFoundError, match="neither one of demo, math, code nor a file"):
        load_template("missing", PLANNER, ("problem",))


class FakeTokenizer:
    def __init__(self, chat_template):
        self.chat_template = chat_template


def test_chat_setting():
    base, instruct = FakeTokenizer(None), FakeTokenizer("{{ messages }}")
    assert [use_chat(s, base) for s in ("auto", "off")] == [False, False]
    assert [use_chat(s, instruct) for s in ("auto", "on", "off")] == [True, True, False]
    with pytest.raises(ValueError, match="no chat template"):
        use_chat("on", base)
