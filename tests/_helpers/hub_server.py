"""A stand-in for the Hugging Face Hub on this machine: as much of its API as huggingface_hub uses to push and to pull.

`HubServer` keeps repositories in memory, checks tokens and checksums, and does on request what a hub should not do.
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
    """Its states by commit, the last one the newest; each maps names to bytes."""

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
        text = f"{len(self.commits)} {message} {sorted((name, _sha256(held)) for name, held in files.items())}"
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name] = files
        self.messages.append(message)
        return name


class HubServer:
    """The stand-in, from `with` to its end.

    `refuse` is a status that it answers to whoever has a token; `damage` maps a file's name to what becomes of its bytes on
    the way; `listed` adds names to what it says a repository holds; `asked` lists what was asked, `METHOD path`.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.refuse: int | None = None
        self.damage: dict[str, Callable[[bytes], bytes]] = {}
        self.listed: list[str] = []
        self.asked: list[str] = []
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


class _Answer(Exception):  # noqa: N818 (it is no error)
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
        self.hub.asked.append(f"{self.command} {path}")
        try:
            for method, pattern, answer in _ROUTES:
                if (found := re.fullmatch(pattern, path)) and self.command in method:
                    answer(self, content, *found.groups())
            raise _Answer(HTTPStatus.NOT_FOUND)
        except _Answer as made:
            body = made.body if isinstance(made.body, bytes) else json.dumps(made.body or {}).encode()
            self.send_response(made.status)
            for name, value in made.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def need_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" or self.hub.refuse == 401:
            raise _Answer(
                401, {"error": "Invalid credentials"}, X_Error_Message="Invalid credentials in Authorization header"
            )
        if self.hub.refuse is not None:
            raise _Answer(self.hub.refuse, {"error": "not yours"}, X_Error_Message="not yours")

    def repository(self, name: str) -> Repository:
        if self.headers.get("Authorization"):
            self.need_token()
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.headers.get("Authorization")):
            raise _Answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        return found

    def state(self, name: str, revision: str | None) -> tuple[str, dict[str, bytes]]:
        found = self.repository(name)
        commit = found.head if revision in (None, "main") else str(revision)
        if commit not in found.commits:
            raise _Answer(404, {"error": "Revision not found"}, X_Error_Code="RevisionNotFound")
        return commit, found.commits[commit]

    def tell_info(self, content: bytes, name: str, revision: str | None = None) -> None:
        commit, files = self.state(name, revision)
        siblings = [
            {"rfilename": path, "size": len(held), "blobId": _blob_id(held)}
            | ({"lfs": {"sha256": _sha256(held), "size": len(held), "pointerSize": 130}} if _is_large(path) else {})
            for path, held in files.items()
        ]
        siblings += [{"rfilename": path, "size": 7, "blobId": "0" * 40} for path in self.hub.listed]
        raise _Answer(200, {"id": name, "modelId": name, "sha": commit, "tags": [], "siblings": siblings})

    def create(self, content: bytes) -> None:
        self.need_token()
        asked = json.loads(content)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            raise _Answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        made = self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
        made.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        raise _Answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def validate_yaml(self, content: bytes) -> None:
        text = json.loads(content)["content"]
        try:
            held = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])  # type: ignore[index]
        except (yaml.YAMLError, TypeError) as error:
            raise _Answer(400, {"errors": [{"message": str(error)}], "warnings": []}) from error
        if not isinstance(held, dict):
            raise _Answer(400, {"errors": [{"message": "no mapping"}], "warnings": []})
        raise _Answer(200, {"errors": [], "warnings": []})

    def preupload(self, content: bytes, name: str) -> None:
        self.need_token()
        held = self.repository(name).files
        files = [
            {
                "path": path,
                "uploadMode": "lfs" if _is_large(path) else "regular",
                "shouldIgnore": False,
                "oid": (_sha256(held[path]) if _is_large(path) else _blob_id(held[path])) if path in held else None,
            }
            for path in (file["path"] for file in json.loads(content)["files"])
        ]
        raise _Answer(200, {"files": files})

    def batch(self, content: bytes, name: str) -> None:
        self.need_token()
        self.repository(name)
        objects = [
            {**wanted}
            if wanted["oid"] in self.hub.objects
            else {
                **wanted,
                "actions": {
                    "upload": {"href": f"{self.hub.url}/objects/{wanted['oid']}", "header": {}},
                    "verify": {"href": f"{self.hub.url}/verify", "header": {}},
                },
            }
            for wanted in json.loads(content)["objects"]
        ]
        raise _Answer(200, {"transfer": "basic", "objects": objects})

    def store(self, content: bytes, oid: str) -> None:
        if _sha256(content) != oid:
            raise _Answer(400, {"error": "the checksum is another"})
        self.hub.objects[oid] = content
        raise _Answer(200)

    def verify(self, content: bytes) -> None:
        self.need_token()
        asked = json.loads(content)
        held = self.hub.objects.get(asked["oid"])
        raise _Answer(200 if held is not None and len(held) == asked["size"] else 404)

    def commit(self, content: bytes, name: str) -> None:
        self.need_token()
        found = self.repository(name)
        files, message = dict(found.files), ""
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
        made = found.commit(files, message)
        raise _Answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{made}", "commitOid": made})

    def resolve(self, content: bytes, name: str, revision: str, path: str) -> None:
        commit, files = self.state(name, revision)
        if path not in files:
            raise _Answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        held = files[path]
        etag = f'"{_sha256(held) if _is_large(path) else _blob_id(held)}"'
        raise _Answer(200, self.hub.damage.get(path, bytes)(held), ETag=etag, X_Repo_Commit=commit)


_REPOSITORY = r"([\w.-]+/[\w.-]+?)"
_ROUTES = (
    ("GET", rf"/api/models/{_REPOSITORY}", _Handler.tell_info),
    ("GET", rf"/api/models/{_REPOSITORY}/revision/(.+)", _Handler.tell_info),
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


def _sha256(held: bytes) -> str:
    return hashlib.sha256(held).hexdigest()


def _blob_id(held: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()
