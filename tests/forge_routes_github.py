"""GitHub's REST API: the parts that a poster uses.

Source: https://docs.github.com/en/rest
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from forge_state import NAME, OWNER, REPOSITORY, Asked, ForgeState, RefusedError, Route


class GithubRoutes(ForgeState):
    """GitHub."""

    def github_routes(self) -> list[Route]:
        """Return method, pattern of the path, and what answers."""
        github = f"/repos/{OWNER}/{NAME}"
        return [
            ("POST", "/graphql", self._viewer),
            ("GET", f"{github}/pulls", self._github_pulls),
            ("GET", rf"{github}/pulls/(\d+)", self._github_pull),
            ("GET", rf"{github}/issues/(\d+)", self._github_issue),
            ("GET", rf"{github}/issues/(\d+)/comments", self._github_comments),
            ("POST", rf"{github}/issues/(\d+)/comments", self._github_create_comment),
            ("GET", rf"{github}/issues/comments/(\d+)", self._github_get_comment),
            ("PATCH", rf"{github}/issues/comments/(\d+)", self._github_edit_comment),
            ("DELETE", rf"{github}/issues/comments/(\d+)", self.delete_comment),
            ("GET", rf"{github}/commits/([0-9a-f]{{40}})", self._github_commit),
            ("GET", f"{github}/commits", self._github_commits),
            ("GET", rf"{github}/contents/(.+)", self._github_file),
            ("POST", rf"{github}/statuses/([0-9a-f]{{40}})", self._github_status),
            ("POST", f"{github}/git/blobs", self._blob),
            ("POST", f"{github}/git/trees", self._tree),
            ("GET", rf"{github}/git/trees/([0-9a-f]{{40}})", self._get_tree),
            ("POST", f"{github}/git/commits", self._commit),
            ("GET", rf"{github}/git/commits/([0-9a-f]{{40}})", self._get_commit),
            ("GET", rf"{github}/git/ref/(.+)", self._get_ref),
            ("POST", f"{github}/git/refs", self._create_ref),
            ("PATCH", rf"{github}/git/refs/(.+)", self._edit_ref),
        ]

    def _viewer(self, asked: Asked) -> tuple[int, Any]:
        return 200, {"data": {"viewer": {"login": self.login}}}

    def _api(self, path: str) -> str:
        return f"{self.url}/repos/{REPOSITORY}/{path}"

    def _pull_json(self, number: int) -> dict[str, Any]:
        pull = self.known(self.pulls, number)
        own = {"full_name": REPOSITORY, "url": f"{self.url}/repos/{REPOSITORY}"}
        source = {"full_name": "stranger/scales", "url": f"{self.url}/repos/stranger/scales"}
        return {
            "number": number, "state": pull["state"], "url": self._api(f"pulls/{number}"),
            "head": {
                "sha": pull["sha"], "ref": "work",
                "repo": None if pull["gone"] else source if pull["from_fork"] else own,
            },
            "base": {"sha": "0" * 40, "ref": pull["base"], "repo": own},
        }  # fmt: skip

    def _github_pulls(self, asked: Asked) -> tuple[int, Any]:
        state = asked.query.get("state", "open")
        return 200, [self._pull_json(number) for number, pull in self.pulls.items() if pull["state"] == state]

    def _github_pull(self, number: int, asked: Asked) -> tuple[int, Any]:
        return 200, self._pull_json(number)

    def _github_issue(self, number: int, asked: Asked) -> tuple[int, Any]:
        self.known(self.pulls, number)
        return 200, {"number": number, "url": self._api(f"issues/{number}")}

    def _comment_json(self, comment: dict[str, Any]) -> dict[str, Any]:
        key = comment["id"]
        return {
            "id": key, "body": comment["body"], "user": {"login": comment["login"], "type": "Bot"},
            "url": self._api(f"issues/comments/{key}"),
            "html_url": f"{self.url}/{REPOSITORY}/pull/x#issuecomment-{key}",
        }  # fmt: skip

    def _github_comments(self, number: int, asked: Asked) -> tuple[int, Any]:
        return 200, [self._comment_json(one) for one in self.known(self.comments, number)]

    def _github_create_comment(self, number: int, asked: Asked) -> tuple[int, Any]:
        self.allowed("comment")
        self._github_body(asked)
        self.known(self.comments, number)
        return 201, self._comment_json(self.add_comment(number, self.login, asked.body["body"]))

    def _github_get_comment(self, key: int, asked: Asked) -> tuple[int, Any]:
        return 200, self._comment_json(self.find_comment(key))

    def _github_edit_comment(self, key: int, asked: Asked) -> tuple[int, Any]:
        self.allowed("comment")
        self._github_body(asked)
        comment = self.find_comment(key)
        comment["body"] = asked.body["body"]
        return 200, self._comment_json(comment)

    def _github_body(self, asked: Asked) -> None:
        if len(asked.body["body"]) > 65_536:
            fault = {"resource": "IssueComment", "code": "unprocessable", "field": "data"}
            raise RefusedError(
                422, {"message": "Validation Failed",
                      "errors": [{**fault, "message": "Body is too long (maximum is 65536 characters)"}]}
            )  # fmt: skip

    def _github_commit(self, sha: str, asked: Asked) -> tuple[int, Any]:
        return 200, {"sha": sha, "url": self._api(f"commits/{sha}")}

    def _github_commits(self, asked: Asked) -> tuple[int, Any]:
        sha: str | None = self.refs[f"refs/heads/{asked.query['sha']}"]
        touching = []
        while sha:
            commit = self.objects[sha]
            parent = (commit["parents"] or [None])[0]
            before = self.objects[self.objects[parent]["tree"]] if parent else []
            if _entry(self.objects[commit["tree"]], asked.query["path"]) != _entry(before, asked.query["path"]):
                touching.append({"sha": sha, "url": self._api(f"commits/{sha}")})
            sha = parent
        return 200, touching

    def _github_file(self, path: str, asked: Asked) -> tuple[int, Any]:
        data = self.known(self.files, (asked.query["ref"].removeprefix("refs/heads/"), path))
        return 200, {
            "type": "file", "name": path, "path": path, "size": len(data), "encoding": "base64",
            "content": base64.encodebytes(data).decode(), "url": self._api(f"contents/{path}"),
        }  # fmt: skip

    def _github_status(self, sha: str, asked: Asked) -> tuple[int, Any]:
        self.allowed("status")
        if asked.body["state"] not in ("error", "failure", "pending", "success"):
            raise RefusedError(422, "Validation Failed")
        if len(asked.body.get("description", "")) > 140:
            raise RefusedError(422, "Validation Failed: description is too long (maximum is 140 characters)")
        self.statuses.setdefault(sha, []).append(asked.body)
        return 201, {**asked.body, "id": 1, "url": self._api(f"statuses/{sha}")}

    def _store(self, kind: str, value: Any) -> str:
        data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
        sha = hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()
        self.objects[sha] = value
        return sha

    def _blob(self, asked: Asked) -> tuple[int, Any]:
        self.allowed("contents")
        sha = self._store("blob", base64.b64decode(asked.body["content"]))
        return 201, {"sha": sha, "url": self._api(f"git/blobs/{sha}")}

    def _tree(self, asked: Asked) -> tuple[int, Any]:
        self.allowed("contents")
        entries = {e["path"]: e for e in self.objects.get(asked.body.get("base_tree", ""), [])}
        for entry in asked.body["tree"]:
            if entry["sha"] not in self.objects:
                raise RefusedError(422, f"tree.sha {entry['sha']} is not a valid object")
            entries[entry["path"]] = entry
        sha = self._store("tree", [entries[path] for path in sorted(entries)])
        return 201, self._tree_json(sha)

    def _tree_json(self, sha: str) -> dict[str, Any]:
        return {"sha": sha, "url": self._api(f"git/trees/{sha}"), "tree": self.objects[sha], "truncated": False}

    def _get_tree(self, sha: str, asked: Asked) -> tuple[int, Any]:
        self.known(self.objects, sha)
        return 200, self._tree_json(sha)

    def _commit(self, asked: Asked) -> tuple[int, Any]:
        self.allowed("contents")
        self._next += 1  # as time would: two commits of the same are two
        sha = self._store("commit", {**asked.body, "time": self._next})
        return 201, self._get_commit(sha, asked)[1]

    def _get_commit(self, sha: str, asked: Asked) -> tuple[int, Any]:
        commit = self.known(self.objects, sha)
        tree = {"sha": commit["tree"], "url": self._api(f"git/trees/{commit['tree']}")}
        parents = [{"sha": parent, "url": self._api(f"git/commits/{parent}")} for parent in commit["parents"]]
        return 200, {"sha": sha, "url": self._api(f"git/commits/{sha}"), "tree": tree, "parents": parents}

    def _ref_json(self, ref: str) -> dict[str, Any]:
        target = {"type": "commit", "sha": self.refs[ref], "url": self._api(f"git/commits/{self.refs[ref]}")}
        return {"ref": ref, "url": self._api(f"git/{ref}"), "object": target}

    def _get_ref(self, ref: str, asked: Asked) -> tuple[int, Any]:
        self.known(self.refs, f"refs/{ref}")
        return 200, self._ref_json(f"refs/{ref}")

    def _create_ref(self, asked: Asked) -> tuple[int, Any]:
        self.allowed("contents")
        if asked.body["ref"] in self.refs:
            raise RefusedError(422, "Reference already exists")
        self.refs[asked.body["ref"]] = asked.body["sha"]
        return 201, self._ref_json(asked.body["ref"])

    def _edit_ref(self, ref: str, asked: Asked) -> tuple[int, Any]:
        self.allowed("contents")
        if self.refs[f"refs/{ref}"] not in self.objects[asked.body["sha"]]["parents"] and not asked.body.get("force"):
            raise RefusedError(422, "Update is not a fast forward")
        self.refs[f"refs/{ref}"] = asked.body["sha"]
        return 200, self._ref_json(f"refs/{ref}")


def _entry(tree: list[dict[str, Any]], path: str) -> dict[str, Any] | None:
    return next((entry for entry in tree if entry["path"] == path), None)
