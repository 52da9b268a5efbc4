"""The Hugging Face Hub on the loopback interface and in memory, for tests with the real clients.

It answers what `huggingface_hub`, `transformers` and `datasets` ask when they create, fill, read
and delete repositories of models and datasets; it has no organisations, pull requests or xet.

    with LoopbackHub() as hub:
        environment = hub.environment(hub.create_token("ann"), home=tmp_path)
        subprocess.run(push, env=os.environ | environment, check=True)
        assert "config.json" in hub.repo("ann/drums").files()

Large files travel by Git LFS, and as at the Hub their bytes lie at another origin than the API
(here `localhost` instead of `127.0.0.1`), which takes no token: its addresses are the permission.
"""

import base64
import hashlib
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard, RepoCard

ID = "(?P<id>(?:[^/]+/)?[^/]+)"
API = f"/api/(?P<kind>models|datasets)/{ID}"
PAGE = f"/(?:(?P<kind>datasets)/)?{ID}"
STORAGE = f"/storage/(?P<kind>models|datasets)/{ID}/(?P<oid>[0-9a-f]{{64}})"
REVISION = "(?P<revision>[^/]+)"

# Method, path, what the request must be allowed to do, and who answers: `LoopbackHub._<name>`.
# A path with an id gives its repository to the answerer; HEAD is answered as GET is.
ROUTES = [
    ("GET", "/api/whoami-v2", "identify", "whoami"),
    ("POST", "/api/repos/create", "create", "create_repo"),
    ("DELETE", "/api/repos/delete", "create", "delete_repo"),
    ("POST", "/api/validate-yaml", "anything", "validate_yaml"),
    ("GET", f"{API}(?:/revision/{REVISION})?", "read", "info"),
    ("GET", f"{API}/auth-check", "read", "nothing"),
    ("GET", f"{API}/auth-check/write", "write", "nothing"),
    ("GET", f"{API}/tree/{REVISION}(?:/(?P<path>.+))?", "read", "tree"),
    ("POST", f"{API}/paths-info/{REVISION}", "read", "paths_info"),
    ("GET", f"{API}/refs", "read", "refs"),
    ("GET", f"{API}/commits/{REVISION}", "read", "commits"),
    ("POST", f"{API}/(?P<refs>branch)/(?P<name>[^/]+)", "write", "create_ref"),
    ("POST", f"{API}/(?P<refs>tag)/{REVISION}", "write", "create_ref"),
    ("DELETE", f"{API}/(?P<refs>branch|tag)/(?P<name>[^/]+)", "write", "delete_ref"),
    ("POST", f"{API}/preupload/{REVISION}", "write", "preupload"),
    ("POST", f"{PAGE}\\.git/info/lfs/objects/batch", "write", "lfs_batch"),
    ("PUT", STORAGE, "store", "put_object"),
    ("GET", STORAGE, "store", "get_object"),
    ("POST", f"{API}/lfs-verify", "write", "lfs_verify"),
    ("POST", f"{API}/commit/{REVISION}", "write", "commit"),
    ("GET", f"{PAGE}/resolve/{REVISION}/(?P<path>.+)", "read", "resolve"),
]


class Answer(NamedTuple):
    body: Any = b""  # bytes, or what becomes JSON
    status: int = 200
    headers: dict[str, str] = {}


class HubError(Exception):
    """The answer of the Hub to a request that it refuses."""

    def __init__(self, status: int, message: str, code: str = "", commit: str = ""):
        headers = {"X-Error-Message": message, "X-Error-Code": code, "X-Repo-Commit": commit}
        shown = {name: value for name, value in headers.items() if value}
        self.answer = Answer({"error": message}, status, shown)


class Account(NamedTuple):
    name: str
    role: Literal["read", "write"]


class File(NamedTuple):
    data: bytes
    lfs: bool

    @property
    def etag(self) -> str:
        """The sha256 of a large file; Git's name of another's data."""
        if self.lfs:
            return hashlib.sha256(self.data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    def row(self, path: str) -> dict[str, Any]:
        """The file as the rows of trees and, by other names, the siblings of infos show it."""
        oid, size = self.etag, {"size": len(self.data)}
        row = {"type": "file", "path": path, "rfilename": path, "oid": oid, "blobId": oid} | size
        if self.lfs:
            row["lfs"] = {"oid": oid, "sha256": oid, "pointerSize": 134} | size
        return row


class Commit(NamedTuple):
    id: str
    parent: str | None
    author: str
    title: str
    message: str
    date: str
    files: Mapping[str, File]


@dataclass
class Repository:
    """A repository; commits are by id in their order, branches and tags are names of commit ids."""

    id: str
    kind: Literal["models", "datasets"]
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # large files, by sha256

    def commit(
        self, branch: str, author: str, title: str, message: str, files: Mapping[str, File]
    ) -> Commit:
        parent = self.branches.get(branch)
        blobs = sorted((path, file.etag) for path, file in files.items())
        content = repr([self.id, len(self.commits), parent, title, blobs])
        name = hashlib.sha1(content.encode()).hexdigest()
        date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        self.commits[name] = Commit(name, parent, author, title, message, date, files)
        self.branches[branch] = name
        return self.commits[name]

    def find(self, revision: str) -> Commit:
        """The commit that a branch, a tag or an id names."""
        name = self.branches.get(revision) or self.tags.get(revision) or revision
        if name not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[name]

    def history(self, revision: str = "main") -> list[Commit]:
        """The commits that led to a revision, the newest first."""
        commits = [self.find(revision)]
        while (parent := commits[-1].parent) is not None:
            commits.append(self.commits[parent])
        return commits

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return {path: file.data for path, file in self.find(revision).files.items()}


@dataclass
class Fault:
    method: str
    path: str
    kind: int | str
    times: int | None
    seconds: float


class Request(BaseHTTPRequestHandler):
    """A request: by HTTP/1.0 each has its connection, so that none is served after the end."""

    account: Account | None

    def json(self) -> Any:
        return json.loads(self.body)

    def handle(self) -> None:
        with suppress(ConnectionError):  # clients may be killed
            super().handle()

    def do_GET(self) -> None:
        hub, url = self.server.hub, urlsplit(self.path)
        self.path, self.query = url.path, parse_qs(url.query)
        hub.requests.append((self.command, self.path))
        fault = hub._take_fault(self.command, self.path)
        length = int(self.headers.get("Content-Length", 0))
        drop = fault is not None and fault.kind == "drop"
        if drop and length:
            self.rfile.read(length // 2)
            return
        self.body = self.rfile.read(length)
        if len(self.body) < length:
            return
        if fault and fault.kind == "slow":
            hub._closed.wait(fault.seconds)
        refused = fault and isinstance(fault.kind, int)
        answer = HubError(fault.kind, "a fault").answer if refused else hub._answer(self)
        self._send(*answer, cut=drop)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _send(self, body: Any, status: int, headers: dict[str, str], cut: bool) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        shown = b"" if self.command == "HEAD" else data
        if cut and not shown:
            return
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(shown[: len(shown) // 2] if cut else shown)

    def log_message(self, *_: object) -> None:
        pass


class LoopbackHub:
    """A Hub that lives as long as its `with` block and lists a tree in pages of `page_size`."""

    def __init__(self, page_size: int = 1000):
        self.page_size = page_size
        self.requests: list[tuple[str, str]] = []  # method and path; never a token
        self._accounts: dict[str, Account] = {}
        self._repos: dict[tuple[str, str], Repository] = {}
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def __enter__(self) -> "LoopbackHub":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._storage = f"http://localhost:{self._server.server_port}/storage"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def create_token(self, user: str, role: Literal["read", "write"] = "write") -> str:
        token = f"hf_{secrets.token_hex(16)}"
        self._accounts[token] = Account(user, role)
        return token

    def environment(self, token: str | None, home: Path) -> dict[str, str]:
        """The environment that a process must have before it imports the clients."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": token or "",
            "HF_HOME": str(home),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def repo(self, id: str, kind: Literal["models", "datasets"] = "models") -> Repository:
        return self._repos[kind, id]

    def fail(
        self,
        method: str,
        path: str,
        fault: int | Literal["drop", "slow"],
        times: int | None = None,
        seconds: float = 0,
    ) -> None:
        """Disturbs requests from now on.

        Args:
            method: Regular expression of the whole method.
            path: Regular expression of a part of the path, without the query.
            fault: A status to refuse with; "drop" to close the connection in the middle of the
                request's body or, where it has none, of the answer's; "slow" to answer late.
            times: How many requests; all of them until `heal` if None.
            seconds: How late "slow" is.
        """
        self._faults.append(Fault(method, path, fault, times, seconds))

    def heal(self) -> None:
        """Ends all faults."""
        self._faults.clear()

    def _take_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if re.fullmatch(fault.method, method) and re.search(fault.path, path):
                    if fault.times is not None:
                        fault.times -= 1
                        if fault.times == 0:
                            self._faults.remove(fault)
                    return fault
        return None

    # From a request to its answer

    def _answer(self, request: Request) -> Answer:
        with self._lock:
            try:
                request.account = self._account(request.headers.get("Authorization"))
                return self._route(request)
            except HubError as error:
                return error.answer

    def _account(self, authorization: str | None) -> Account | None:
        if authorization is None:
            return None
        if account := self._accounts.get(authorization.removeprefix("Bearer ")):
            return account
        raise HubError(401, "Invalid credentials in Authorization header")

    def _route(self, request: Request) -> Answer:
        asked = "GET" if request.command == "HEAD" else request.command
        for method, path, access, name in ROUTES:
            if method == asked and (match := re.fullmatch(path, request.path)):
                found = match.groupdict().items()
                arguments = {key: unquote(value) for key, value in found if value is not None}
                if "id" in match.groupdict():
                    place = arguments.pop("kind", "models"), arguments.pop("id")
                    arguments["repo"] = self._open(*place, access, request)
                elif access != "anything":
                    self._check_account(access, request.account)
                return getattr(self, f"_{name}")(request, **arguments)
        raise HubError(404, f"Sorry, we can't find the page {request.path}")

    def _check_account(self, access: str, account: Account | None) -> None:
        if account is None:
            raise HubError(401, "Invalid username or password.")
        if access in ("create", "write") and account.role != "write":
            raise HubError(403, f"the token of {account.name}: found role read, expected write")

    def _open(self, kind: str, id: str, access: str, request: Request) -> Repository:
        repo, account = self._repos.get((kind, id)), request.account
        if access == "store":
            if account is not None:
                raise HubError(400, "Only one auth mechanism allowed")
            if repo is None:
                raise HubError(404, "NoSuchKey")
            return repo
        owns = account is not None and account.name == id.split("/")[0]
        if repo is None or (repo.private and not owns):
            raise HubError(404 if account else 401, "Repository not found", "RepoNotFound")
        if access == "write":
            self._check_account(access, account)
            if not owns:
                raise HubError(403, f"{account.name} has no write access to {id}")
        return repo

    # Accounts and repositories

    def _whoami(self, request: Request) -> Answer:
        name, role = request.account
        token = {"accessToken": {"displayName": "test", "role": role}}
        return Answer({"name": name, "type": "user", "orgs": [], "auth": token})

    def _place(self, request: Request) -> tuple[str, str]:
        """Kind and id of the repository that a request of its owner creates or deletes."""
        asked, owner = request.json(), request.account.name
        if (asked["organization"] or owner) != owner:
            raise HubError(403, f"{owner} has no rights under {asked['organization']}")
        return f"{asked.get('type') or 'model'}s", f"{owner}/{asked['name']}"

    def _create_repo(self, request: Request) -> Answer:
        kind, id = self._place(request)
        if kind not in ("models", "datasets"):
            raise HubError(400, f"type: found {kind}, expected models or datasets")
        url = self._page(kind, id)
        if (kind, id) in self._repos:
            return Answer({"error": "You already created this repo", "url": url}, 409)
        private = request.json().get("visibility") == "private"
        self._repos[kind, id] = repo = Repository(id, kind, private)
        repo.commit("main", request.account.name, "initial commit", "", {})
        return Answer({"url": url, "name": id})

    def _delete_repo(self, request: Request) -> Answer:
        if self._repos.pop(self._place(request), None) is None:
            raise HubError(404, "Repository not found", "RepoNotFound")
        return Answer()

    def _page(self, kind: str, id: str) -> str:
        return f"{self.url}/{'datasets/' if kind == 'datasets' else ''}{id}"

    def _nothing(self, request: Request, repo: Repository) -> Answer:
        return Answer({})

    def _info(self, request: Request, repo: Repository, revision: str = "main") -> Answer:
        commit, first = repo.find(revision), next(iter(repo.commits.values()))
        card = commit.files.get("README.md", File(b"", lfs=False)).data.decode()
        card_data = RepoCard(card, ignore_metadata_errors=True).data.to_dict()
        blobs = "blobs" in request.query
        siblings = [
            file.row(path) if blobs else {"rfilename": path} for path, file in commit.files.items()
        ]
        info = {"id": repo.id, "sha": commit.id, "private": repo.private, "siblings": siblings}
        info |= {"createdAt": first.date, "lastModified": commit.date, "cardData": card_data}
        named = {name: card_data.get(name) for name in ("library_name", "pipeline_tag")}
        return Answer(info | named | {"tags": card_data.get("tags") or []})

    def _validate_yaml(self, request: Request) -> Answer:
        card = DatasetCard if request.json().get("repoType") == "dataset" else ModelCard
        try:
            card(request.json()["content"])
        except (ValueError, yaml.YAMLError) as error:
            return Answer({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return Answer({"errors": [], "warnings": []})

    # Trees and refs

    def _tree(self, request: Request, repo: Repository, revision: str, path: str = "") -> Answer:
        commit, prefix = repo.find(revision), f"{path}/" if path else ""
        rows = [row for row in _rows(commit) if row["path"].startswith(prefix)]
        if path and not rows:
            raise HubError(404, f"{path} does not exist on {revision}", "EntryNotFound")
        if request.query.get("recursive") not in (["true"], ["True"], ["1"]):
            rows = [row for row in rows if "/" not in row["path"][len(prefix) :]]
        start = int(request.query.get("cursor", ["0"])[0])
        end, headers = start + self.page_size, {}
        if end < len(rows):
            query = urlencode(request.query | {"cursor": end}, doseq=True)
            headers["Link"] = f'<{self.url}{request.path}?{query}>; rel="next"'
        return Answer(rows[start:end], headers=headers)

    def _paths_info(self, request: Request, repo: Repository, revision: str) -> Answer:
        paths = parse_qs(request.body.decode()).get("paths", [])
        return Answer([row for row in _rows(repo.find(revision)) if row["path"] in paths])

    def _refs(self, request: Request, repo: Repository) -> Answer:
        def rows(folder: str, refs: dict[str, str]) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": commit}
                for name, commit in refs.items()
            ]

        refs = {"branches": rows("heads", repo.branches), "tags": rows("tags", repo.tags)}
        return Answer(refs | {"converts": [], "pullRequests": []})

    def _commits(self, request: Request, repo: Repository, revision: str) -> Answer:
        rows = [
            {"id": c.id, "title": c.title, "message": c.message, "date": c.date}
            | {"authors": [{"user": c.author}]}
            for c in repo.history(revision)
        ]
        return Answer(rows)

    def _create_ref(
        self, request: Request, repo: Repository, refs: str, revision: str = "main", name: str = ""
    ) -> Answer:
        """A branch is named by the path, a tag by the body; what they start at, the other way."""
        asked = request.json()
        name, start = name or asked["tag"], asked.get("startingPoint", revision)
        known = repo.branches if refs == "branch" else repo.tags
        if name in known:
            raise HubError(409, f"Reference already exists: {name}")
        known[name] = repo.find(start).id
        return Answer({})

    def _delete_ref(self, request: Request, repo: Repository, refs: str, name: str) -> Answer:
        known = repo.branches if refs == "branch" else repo.tags
        if known.pop(name, None) is None:
            raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
        return Answer()

    # Upload

    def _preupload(self, request: Request, repo: Repository, revision: str) -> Answer:
        present, rows = repo.find(revision).files, request.json()["files"]
        for file in rows:
            file["uploadMode"] = "lfs" if _is_large(**file) else "regular"
            file["shouldIgnore"] = False
            if file["path"] in present:
                file["oid"] = present[file["path"]].etag
        return Answer({"files": rows})

    def _lfs_batch(self, request: Request, repo: Repository) -> Answer:
        objects, place = request.json()["objects"], f"{repo.kind}/{repo.id}"
        for asked in objects:
            if asked["oid"] not in repo.objects:
                asked["actions"] = {
                    "upload": {"href": f"{self._storage}/{place}/{asked['oid']}"},
                    "verify": {"href": f"{self.url}/api/{place}/lfs-verify"},
                }
        return Answer({"transfer": "basic", "objects": objects})

    def _put_object(self, request: Request, repo: Repository, oid: str) -> Answer:
        if (found := hashlib.sha256(request.body).hexdigest()) != oid:
            raise HubError(400, f"sha256: found {found}, expected {oid}")
        repo.objects[oid] = request.body
        return Answer()

    def _get_object(self, request: Request, repo: Repository, oid: str) -> Answer:
        return _content(request, repo.objects[oid], {"ETag": f'"{oid}"'})

    def _lfs_verify(self, request: Request, repo: Repository) -> Answer:
        oid, size = request.json()["oid"], request.json()["size"]
        if len(repo.objects.get(oid, b"")) != size:
            raise HubError(404, f"{oid}: expected an object of {size} bytes")
        return Answer()

    def _commit(self, request: Request, repo: Repository, revision: str) -> Answer:
        if revision not in repo.branches:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head = repo.find(revision)
        header, *operations = (json.loads(line) for line in request.body.splitlines())
        about = header["value"]
        if about.get("parentCommit", head.id) != head.id:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for operation in operations:
            _apply(operation["key"], operation["value"], files, repo)
        author, title = request.account.name, about["summary"]
        commit = repo.commit(revision, author, title, about["description"], files)
        url = f"{self._page(repo.kind, repo.id)}/commit/{commit.id}"
        return Answer({"success": True, "commitOid": commit.id, "commitUrl": url})

    # Download

    def _resolve(self, request: Request, repo: Repository, revision: str, path: str) -> Answer:
        commit = repo.find(revision)
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound", commit.id)
        file, headers = commit.files[path], {"X-Repo-Commit": commit.id}
        etag, size = f'"{file.etag}"', str(len(file.data))
        if not file.lfs:
            return _content(request, file.data, headers | {"ETag": etag})
        location = f"{self._storage}/{repo.kind}/{repo.id}/{file.etag}"
        headers |= {"Location": location, "X-Linked-Etag": etag, "X-Linked-Size": size}
        return Answer(status=302, headers=headers)


def _rows(commit: Commit) -> Iterator[dict[str, Any]]:
    """Files and folders of a commit, in the order of their paths."""
    rows = {path: file.row(path) for path, file in commit.files.items()}
    for path in commit.files:
        for folder in map(str, PurePosixPath(path).parents[:-1]):
            oid = hashlib.sha1(f"{commit.id}/{folder}".encode()).hexdigest()
            rows[folder] = {"type": "directory", "path": folder, "oid": oid, "size": 0}
    return (rows[path] for path in sorted(rows))


def _is_large(path: str, size: int, sample: str) -> bool:
    weighty = path.endswith((".safetensors", ".parquet")) or size > 10 * 1000**2
    return weighty or b"\0" in base64.b64decode(sample)


def _apply(key: str, value: dict[str, Any], files: dict[str, File], repo: Repository) -> None:
    """One operation of a commit."""
    path = value["path"].rstrip("/")
    if key == "file":
        files[path] = File(base64.b64decode(value["content"]), lfs=False)
    elif key == "lfsFile":
        if value["oid"] not in repo.objects:
            raise HubError(400, f"{path}: expected an uploaded object {value['oid']}")
        files[path] = File(repo.objects[value["oid"]], lfs=True)
    else:
        folder = key == "deletedFolder"
        gone = [name for name in files if (name.startswith(f"{path}/") if folder else name == path)]
        if not gone:
            raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
        for name in gone:
            del files[name]


def _content(request: Request, data: bytes, headers: dict[str, str]) -> Answer:
    """The bytes that a request asks for: all, or those of its Range."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if match is None:
        return Answer(data, headers=headers)
    start, end = int(match[1]), int(match[2] or len(data) - 1)
    if start >= len(data):
        raise HubError(416, f"Range: found {match[0]}, expected less than {len(data)}")
    part = data[start : end + 1]
    span = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
    return Answer(part, 206, headers | {"Content-Range": span})


Client = Callable[..., Any]


@contextmanager
def client_process(environment: dict[str, str]) -> Iterator[Client]:
    """Calls functions in a process that has the environment before it imports anything."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            pool.submit(int).result()  # the first call starts the process, which inherits them
        yield lambda function, *args, **kwargs: pool.submit(function, *args, **kwargs).result(120)


def asked(hub: LoopbackHub, method: str, part: str) -> int:
    """How often."""
    return sum(method == m and part in path for m, path in hub.requests)
