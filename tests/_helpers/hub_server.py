"""A local substitute for the Hugging Face Hub: the part of its API that huggingface_hub uses to push and to pull.

`HubServer` stores repositories in memory and checks tokens and checksums. On request it misbehaves.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_standinstandinstandin"
_LARGE = (".safetensors", ".png")


@dataclass
class Repository:
    """A repository: files by commit, in order, and commit messages."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.head]

    def commit(self, files: dict[str, bytes], message: str) -> str:
        text = f"{len(self.commits)} {message} {sorted((name, _sha256(data)) for name, data in files.items())}"
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name] = files
        self.messages.append(message)
        return name


class HubServer:
    """The server, running inside a `with` block.

    Attributes:
        refuse: The HTTP status with which it answers requests that have a token; None accepts them.
        damage: Functions by file name that change a file's bytes when it is downloaded.
        listed: Names that it lists in addition to the files of a repository.
        asked: The requests that it received, as `METHOD path`.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.error_status: int | None = None
        self.damage: dict[str, Callable[[bytes], bytes]] = {}
        self.extra_files: list[str] = []
        self.requests: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "HubServer":
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


class _Response(Exception):  # noqa: N818 (not an error)
    def __init__(self, status: int, body: Any = None, **headers: str) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.respond()

    do_HEAD = do_POST = do_PUT = do_GET

    def respond(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        try:
            for methods, pattern, handle in _ROUTES:
                if (match := re.fullmatch(pattern, path)) and self.command in methods:
                    handle(self, content, *match.groups())
            raise _Response(HTTPStatus.NOT_FOUND)
        except _Response as response:
            body = response.body if isinstance(response.body, bytes) else json.dumps(response.body or {}).encode()
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def check_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" or self.hub.error_status == 401:
            raise _Response(
                401, {"error": "Invalid credentials"}, X_Error_Message="Invalid credentials in Authorization header"
            )
        if self.hub.error_status is not None:
            raise _Response(self.hub.error_status, {"error": "not yours"}, X_Error_Message="not yours")

    def repository(self, name: str) -> Repository:
        if self.headers.get("Authorization"):
            self.check_token()
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self.headers.get("Authorization")):
            raise _Response(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        return repository

    def state(self, name: str, revision: str | None) -> tuple[str, dict[str, bytes]]:
        repository = self.repository(name)
        commit = repository.head if revision in (None, "main") else str(revision)
        if commit not in repository.commits:
            raise _Response(404, {"error": "Revision not found"}, X_Error_Code="RevisionNotFound")
        return commit, repository.commits[commit]

    def model_info(self, content: bytes, name: str, revision: str | None = None) -> None:
        commit, files = self.state(name, revision)
        siblings = [
            {"rfilename": path, "size": len(data), "blobId": _blob_id(data)}
            | ({"lfs": {"sha256": _sha256(data), "size": len(data), "pointerSize": 130}} if _is_large(path) else {})
            for path, data in files.items()
        ]
        siblings += [{"rfilename": path, "size": 7, "blobId": "0" * 40} for path in self.hub.extra_files]
        raise _Response(200, {"id": name, "modelId": name, "sha": commit, "tags": [], "siblings": siblings})

    def create(self, content: bytes) -> None:
        self.check_token()
        options = json.loads(content)
        name = f"{options['organization']}/{options['name']}"
        if name in self.hub.repositories:
            raise _Response(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        repository = self.hub.repositories[name] = Repository(private=options.get("visibility") == "private")
        repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        raise _Response(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def validate_yaml(self, content: bytes) -> None:
        text = json.loads(content)["content"]
        try:
            metadata = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])  # type: ignore[index]
        except (yaml.YAMLError, TypeError) as error:
            raise _Response(400, {"errors": [{"message": str(error)}], "warnings": []}) from error
        if not isinstance(metadata, dict):
            raise _Response(400, {"errors": [{"message": "not a mapping"}], "warnings": []})
        raise _Response(200, {"errors": [], "warnings": []})

    def preupload(self, content: bytes, name: str) -> None:
        self.check_token()
        existing = self.repository(name).files
        files = [
            {
                "path": path,
                "uploadMode": "lfs" if _is_large(path) else "regular",
                "shouldIgnore": False,
                "oid": _etag(path, existing[path]) if path in existing else None,
            }
            for path in (file["path"] for file in json.loads(content)["files"])
        ]
        raise _Response(200, {"files": files})

    def batch(self, content: bytes, name: str) -> None:
        self.check_token()
        self.repository(name)
        objects = [
            {**item}
            if item["oid"] in self.hub.objects
            else {
                **item,
                "actions": {
                    "upload": {"href": f"{self.hub.url}/objects/{item['oid']}", "header": {}},
                    "verify": {"href": f"{self.hub.url}/verify", "header": {}},
                },
            }
            for item in json.loads(content)["objects"]
        ]
        raise _Response(200, {"transfer": "basic", "objects": objects})

    def store(self, content: bytes, oid: str) -> None:
        if _sha256(content) != oid:
            raise _Response(400, {"error": "the checksum does not match"})
        self.hub.objects[oid] = content
        raise _Response(200)

    def verify(self, content: bytes) -> None:
        self.check_token()
        item = json.loads(content)
        data = self.hub.objects.get(item["oid"])
        raise _Response(200 if data is not None and len(data) == item["size"] else 404)

    def commit(self, content: bytes, name: str) -> None:
        self.check_token()
        repository = self.repository(name)
        files, message = dict(repository.files), ""
        for line in content.splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        commit = repository.commit(files, message)
        raise _Response(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})

    def resolve(self, content: bytes, name: str, revision: str, path: str) -> None:
        commit, files = self.state(name, revision)
        if path not in files:
            raise _Response(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        data = self.hub.damage.get(path, bytes)(files[path])
        raise _Response(200, data, ETag=f'"{_etag(path, files[path])}"', X_Repo_Commit=commit)


_REPOSITORY = r"([\w.-]+/[\w.-]+?)"
_ROUTES = (
    ("GET", rf"/api/models/{_REPOSITORY}", _Handler.model_info),
    ("GET", rf"/api/models/{_REPOSITORY}/revision/(.+)", _Handler.model_info),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
    ("POST", rf"/api/models/{_REPOSITORY}/preupload/main", _Handler.preupload),
    ("POST", rf"/{_REPOSITORY}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/objects/([0-9a-f]{64})", _Handler.store),
    ("POST", "/verify", _Handler.verify),
    ("POST", rf"/api/models/{_REPOSITORY}/commit/main", _Handler.commit),
    ("HEAD GET", rf"/{_REPOSITORY}/resolve/([^/]+)/(.+)", _Handler.resolve),
)


def _is_large(path: str) -> bool:
    return path.endswith(_LARGE)


def _etag(path: str, data: bytes) -> str:
    return _sha256(data) if _is_large(path) else _blob_id(data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
