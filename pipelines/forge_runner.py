"""What a forge's runner tells a job by its environment: the forge, the repository, the pull request, the token.

Source: https://docs.github.com/en/actions/reference/workflows-and-actions/variables and
https://docs.gitlab.com/ci/variables/predefined_variables/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.forge import FORGES, Address
from pipelines.forge_answers import ForgeError

RUNNERS = {"github": "GITHUB_ACTIONS", "gitlab": "GITLAB_CI"}  # variable that each sets


@dataclass(frozen=True)
class Runner:
    """What is known before anything is asked.

    Attributes:
        forge: Row of `FORGES`.
        api_url: Of its API.
        web_url: Of its pages.
        repository: May be empty.
        number: Of the pull request; None where the run is of none.
    """

    forge: str
    api_url: str
    web_url: str
    repository: str
    number: int | None

    def address(self, environment: Mapping[str, str]) -> Address:
        """Add the token.

        Raises:
            ForgeError: There is no repository or no token.
        """
        if not self.repository:
            raise ForgeError(f"no repository on {self.forge}, expected --repository owner/name; say it")
        variable = FORGES[self.forge].token_variable
        token = environment.get(variable, "").strip()
        if not token:
            raise ForgeError(f"no token for {self.forge}, expected one in ${variable}; set it, or say --dry-run")
        return Address(self.forge, self.api_url, self.web_url, self.repository, token)


def is_runner(environment: Mapping[str, str]) -> bool:
    """Whether this is a job of a forge's runner."""
    return any(environment.get(variable) for variable in RUNNERS.values())


def runner(environment: Mapping[str, str], forge: str | None, repository: str | None) -> Runner:
    """Read the environment.

    Args:
        environment: Of the process.
        forge: Said by the user; None: the runner's own.
        repository: As `forge`.

    Raises:
        ForgeError: No forge is said, and this is no runner of one.
    """
    if forge is None:
        forge = next((name for name, variable in RUNNERS.items() if environment.get(variable)), None)
    if forge is None:
        raise ForgeError(f"not in a forge's runner, expected --forge {' or '.join(FORGES)}; say it")
    return _github(environment, repository) if forge == "github" else _gitlab(environment, repository)


def _github(environment: Mapping[str, str], repository: str | None) -> Runner:
    number = re.fullmatch(r"refs/pull/(\d{1,9})/merge", environment.get("GITHUB_REF", ""))
    return Runner(
        "github",
        environment.get("GITHUB_API_URL") or "https://api.github.com",
        environment.get("GITHUB_SERVER_URL") or "https://github.com",
        repository or environment.get("GITHUB_REPOSITORY", ""),
        int(number[1]) if number else None,
    )


def _gitlab(environment: Mapping[str, str], repository: str | None) -> Runner:
    web_url = environment.get("CI_SERVER_URL") or "https://gitlab.com"
    number = environment.get("CI_MERGE_REQUEST_IID", "")
    # The project that the merge request is to, also where its pipeline is one of a fork.
    own = environment.get("CI_MERGE_REQUEST_PROJECT_ID") or environment.get("CI_PROJECT_ID", "")
    return Runner(
        "gitlab",
        environment.get("CI_API_V4_URL") or f"{web_url}/api/v4",
        web_url,
        repository or own,
        int(number) if re.fullmatch(r"\d{1,9}", number) else None,
    )
