"""The error budget counts faults, not refusals, and only where there are enough videos to tell."""

import pytest

from pipelines.budget import Budget


@pytest.mark.parametrize(
    ("videos", "errors", "over"),
    [
        ({"ok": 170, "failed": 30}, {"truncated": 30}, False),
        ({"ok": 150, "failed": 50}, {"truncated": 20, "io_error": 30}, True),
        ({"ok": 150, "failed": 250, "duplicate": 9}, {"policy_licence": 250}, False),
        ({"ok": 1, "failed": 50}, {"truncated": 50}, False),
        ({}, {}, False),
    ],
)
def test_exceeded(videos: dict[str, int], errors: dict[str, int], over: bool) -> None:
    assert (Budget().exceeded(videos, errors) is not None) == over


def test_the_sentence_says_how_many_and_what_most() -> None:
    said = Budget(least_videos=2, failed_share=0.1).exceeded({"ok": 2, "failed": 2}, {"io_error": 2})
    assert said is not None
    assert "2 of 4 videos failed" in said
    assert "io_error (2)" in said
