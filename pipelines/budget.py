"""Budget: how many videos may fail before a finished run no longer counts as a success."""

from collections.abc import Mapping

from pydantic import Field

from curation.config import Config

NOT_FAULTS = frozenset({"policy_licence"})  # a video that the user's own allow-list refuses has not failed


class Budget(Config):
    """The error budget of a run. What was curated is published all the same; the exit code says that someone should look."""

    failed_share: float = Field(0.2, ge=0, le=1, description="share of failed videos above which the run ends with code 3; 1 = never")
    least_videos: int = Field(200, ge=1, description="videos below which the share says too little to judge by")

    def exceeded(self, videos: Mapping[str, int], errors: Mapping[str, int]) -> str | None:
        """One sentence if more failed than is allowed, else None.

        Args:
            videos: status -> count ("ok", "failed", "duplicate").
            errors: error code of failed videos -> count.
        """
        failed = sum(n for code, n in errors.items() if code not in NOT_FAULTS)
        tried = videos.get("ok", 0) + failed
        if tried < self.least_videos or failed <= self.failed_share * tried:
            return None
        worst = max(errors.items(), key=lambda item: item[1])
        return (
            f"{failed} of {tried} videos failed, allowed are {self.failed_share:.0%}; most often {worst[0]} ({worst[1]}). "
            "What was curated is published; `pan status OUT` lists the codes, budget.failed_share sets the limit"
        )
