"""GitLab's REST API: the parts that a poster uses.

Source: https://docs.gitlab.com/api/rest/
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from forge_state import FORK, PROJECT, Asked, ForgeState, RefusedError, Route


class GitlabRoutes(ForgeState):
    """GitLab."""

    def gitlab_routes(self) -> list[Route]:
        """Return method, pattern of the path, and what answers."""
        gitlab = r"/api/v4/projects/(7|team%2Fscales)"
        request, any_project = rf"{gitlab}/merge_requests", r"/api/v4/projects/(\d+)"
        return [
            ("GET", "/api/v4/user", self._gitlab_user),
            ("GET", request, self._gitlab_requests),
            ("GET", rf"{request}/(\d+)", self._gitlab_request),
            ("GET", rf"{request}/(\d+)/notes", self._gitlab_notes),
            ("POST", rf"{request}/(\d+)/notes", self._gitlab_create_note),
            ("PUT", rf"{request}/(\d+)/notes/(\d+)", self._gitlab_edit_note),
            ("DELETE", rf"{request}/(\d+)/notes/(\d+)", lambda _, __, key, asked: self.delete_comment(key, asked)),
            ("POST", rf"{gitlab}/statuses/([0-9a-f]{{40}})", self._gitlab_status),
            ("GET", rf"{gitlab}/repository/commits/([0-9a-f]{{40}})/statuses", self._gitlab_statuses),
            ("GET", rf"{gitlab}/repository/files/([^/]+)/raw", self._gitlab_file),
            ("POST", rf"{gitlab}/uploads", self._gitlab_upload),
            ("GET", rf"{any_project}/pipelines/(\d+)/jobs", lambda _, pipeline, asked: (200, self.jobs[pipeline])),
            ("GET", rf"{any_project}/jobs/(\d+)/artifacts/(.+)", self._gitlab_artifact),
        ]

    def _gitlab_user(self, asked: Asked) -> tuple[int, Any]:
        return 200, {"id": self._user(self.login), "username": self.login}

    def _user(self, login: str) -> int:
        return int(hashlib.sha1(login.encode()).hexdigest()[:6], 16)

    def _request_json(self, number: int) -> dict[str, Any]:
        pull = self.known(self.pulls, number)
        return {
            "id": 1000 + number, "iid": number, "project_id": PROJECT, "sha": pull["sha"],
            "state": "opened" if pull["state"] == "open" else "closed", "target_branch": pull["base"],
            "source_project_id": None if pull["gone"] else FORK if pull["from_fork"] else PROJECT,
            "target_project_id": PROJECT, "source_branch": "work",
        }  # fmt: skip

    def _gitlab_requests(self, _: Any, asked: Asked) -> tuple[int, Any]:
        rows = [self._request_json(number) for number in self.pulls]
        return 200, [row for row in rows if row["state"] == asked.query.get("state", row["state"])]

    def _gitlab_request(self, _: Any, number: int, asked: Asked) -> tuple[int, Any]:
        return 200, {**self._request_json(number), "head_pipeline": self.pulls[number]["head_pipeline"]}

    def _note_json(self, comment: dict[str, Any]) -> dict[str, Any]:
        author = {"id": self._user(comment["login"]), "username": comment["login"]}
        return {"id": comment["id"], "body": comment["body"], "author": author, "system": False}

    def _gitlab_notes(self, _: Any, number: int, asked: Asked) -> tuple[int, Any]:
        rows = [self._note_json(one) for one in self.known(self.comments, number)]
        return 200, rows if asked.query.get("sort") == "asc" else rows[::-1]  # as documented: newest first

    def _gitlab_body(self, asked: Asked) -> str:
        self.allowed("comment")
        body: str = asked.body["body"]
        if len(body) > 1_000_000:
            raise RefusedError(400, {"note": ["is too long (maximum is 1000000 characters)"]})
        assert not re.search(r"^\s*/[a-z]", body, re.MULTILINE), "a quick action would be done"
        return body

    def _gitlab_create_note(self, _: Any, number: int, asked: Asked) -> tuple[int, Any]:
        self.known(self.comments, number)
        return 201, self._note_json(self.add_comment(number, self.login, self._gitlab_body(asked)))

    def _gitlab_edit_note(self, _: Any, number: int, key: int, asked: Asked) -> tuple[int, Any]:
        comment = self.find_comment(key)
        comment["body"] = self._gitlab_body(asked)
        return 200, self._note_json(comment)

    def _gitlab_status(self, _: Any, sha: str, asked: Asked) -> tuple[int, Any]:
        self.allowed("status")
        if any(pull["sha"] == sha and pull["from_fork"] for pull in self.pulls.values()):
            raise RefusedError(404, "404 References for commit Not Found")
        if asked.body["state"] not in ("pending", "running", "success", "failed", "canceled", "skipped"):
            raise RefusedError(400, {"state": ["does not have a valid value"]})
        if self.updates_in_progress:
            self.updates_in_progress -= 1
            raise RefusedError(409, "409 Conflict: an update is already in progress. Retry the request")
        self.statuses.setdefault(sha, []).append(asked.body)
        return 201, {"id": 1, "sha": sha, "status": asked.body["state"]}

    def _gitlab_statuses(self, _: Any, sha: str, asked: Asked) -> tuple[int, Any]:
        rows = [one for one in self.statuses.get(sha, []) if one["name"] == asked.query["name"]]
        keys = ("name", "description", "target_url")
        told = [
            {"id": place, "sha": sha, "status": row["state"], **{key: row.get(key) for key in keys}}
            for place, row in enumerate(rows)
        ]
        return 200, told[-1:]  # as documented: the latest of a name, where not all are asked for

    def _gitlab_file(self, _: Any, path: str, asked: Asked) -> tuple[int, Any]:
        return 200, self.known(self.files, (asked.query["ref"].removeprefix("refs/heads/"), path))

    def _gitlab_upload(self, _: Any, asked: Asked) -> tuple[int, Any]:
        self.allowed("contents")
        name, data = asked.body
        url = f"/uploads/{hashlib.md5(str(len(self.uploads)).encode()).hexdigest()}/{name}"
        self.uploads[url] = data
        return 201, {"alt": name, "url": url, "full_path": f"/-/project/7{url}", "markdown": f"![{name}]({url})"}

    def _gitlab_artifact(self, _: int, job: int, path: str, asked: Asked) -> tuple[int, Any]:
        return 200, self.known(self.artifacts, (job, path))
