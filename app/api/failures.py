"""Why something failed, on the API."""

from typing import Self

import strawberry

from app.payments import model


@strawberry.type(description="Why it failed: our stable code, the provider's own words, and what to do about it.")
class Failure:
    code: str
    provider_code: str | None
    provider_message: str | None
    explanation: str
    explanation_zh: str

    @classmethod
    def of(cls, failure: model.Failure | None) -> Self | None:
        """The failure as clients see it, where there is one."""
        if failure is None:
            return None
        return cls(
            code=failure.code,
            provider_code=failure.provider_code,
            provider_message=failure.provider_message,
            explanation=failure.explanation,
            explanation_zh=failure.explanation_zh,
        )
