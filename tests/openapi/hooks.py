"""What a generator of random requests cannot know: which objects there are, that a key is for one
call only, and which valid requests are too much for the machine that runs the tests."""

import atexit
import collections
import io
import json
import os
import tarfile
import uuid

import requests
import schemathesis
from hypothesis import strategies
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoveragePhaseData

# Objects of the server under test: main.rs makes them.
REAL = json.loads(os.environ["PINFOLD_FIXTURE"])
# Ended by their own calls: other workspaces than the one that everything else happens in.
ENDS = ("start", "stop", "pause", "resume", "restore", "token", "fork")
# What state a workspace has to be in for a call that changes it.
BEFORE = {
    "workspace.pause": "running",
    "workspace.resume": "paused",
    "workspace.start": "stopped",
    "workspace.stop": "running",
    "workspace.token": "running",
}
# Valid, and done or refused at once: no registry, no archive and no directory of the host is read.
HARMLESS = {
    "image.pull": {"image": "127.0.0.1:1/none"},
    "image.import": {"name": "none", "source": {"from": "path", "path": "/nonexistent/pinfold"}},
    "image.build": {"name": "none", "steps": "FROM none-such"},
}
# Requests whose body is an upload.
UPLOADED = {
    "image.import": {"name": "none", "source": {"from": "upload"}},
    "image.build": {"name": "none", "steps": "FROM none-such"},
}
# What is there and may be read, made, moved and removed, for two of three valid paths.
FILES = {
    "file.stat": "/etc/hostname",
    "file.list": "/etc",
    "file.read": "/etc/hostname",
    "archive.read": "/etc/hostname",
    "file.write": "/tmp/written",
    "archive.write": "/tmp",
}
# Bodies that name what is there, for two of three valid ones.
BODIES = {
    "exec.start": {"command": {"argv": ["true"]}},
    "exec.signal": {"signal": 18},
    "file.mkdir": {"path": "/tmp/made/below", "parents": True},
    "file.chmod": {"path": "/tmp/chmod", "mode": 0o600},
    "file.rename": {"from": "/tmp/here", "to": "/tmp/there"},
    "file.remove": {"path": "/tmp/there"},
    "workspace.restore": {"snapshot": REAL["victim_snapshot"]},
    "session.adopt": {},
}
# What is made for a call that ends it, for two of three valid ones: path, body, keys of the id.
FOR_THE_END = {
    "session.end": ("sessions", {}, ("id",)),
    "token.revoke": ("tokens", {"name": "ended", "same_principal": True}, ("info", "id")),
    "snapshot.remove": (f"workspaces/{REAL['workspace']}/snapshots", {}, ("id",)),
    "workspace.destroy": ("workspaces", {}, ("id",)),
    "image.remove": None,
}
# Workspaces that requests made: as many stay, so that what follows from them finds them, and the
# machine does not fill up.
KEPT = 24

# The server's ceiling where nothing is configured.
OPEN_FILES = 1024

ANONYMOUS = bool(os.environ.get("PINFOLD_ANONYMOUS"))

sent = collections.Counter()
counts = collections.defaultdict(collections.Counter)
made = collections.deque()


def tar(name, data):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


schemathesis.openapi.media_type(
    "application/x-tar",
    strategies.builds(
        tar, strategies.from_regex("[a-z]{1,12}", fullmatch=True), strategies.binary(max_size=600)
    ),
)
schemathesis.openapi.media_type("application/octet-stream", strategies.binary(max_size=600))


def name_of(case):
    return case.operation.definition.raw.get("operationId")


def valid(case, location):
    """Whether what is at this place is meant to be valid."""
    if case.meta is None or not case.meta.is_negative_at(location):
        return True
    # The coverage phase of 4.32.5 takes "" for a header with a pattern, where it means a valid one;
    # a header that it breaks on purpose is named.
    data = case.meta.phase.data
    return (
        isinstance(data, CoveragePhaseData)
        and location == ParameterLocation.HEADER
        and data.parameter_location != location
    )


def ask(method, path, **more):
    url = f"{os.environ['PINFOLD_URL']}/api/v1/{path}"
    headers = {"Authorization": f"Bearer {os.environ['PINFOLD_TOKEN']}", **more.pop("headers", {})}
    answer = requests.request(method, url, headers=headers, timeout=60, **more)
    if not answer.ok:
        raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
    return answer


def forget(workspace):
    """Removes a workspace that a case made, unless another one did or its time is over."""
    url = f"{os.environ['PINFOLD_URL']}/api/v1/workspaces/{workspace}"
    headers = {"Authorization": f"Bearer {os.environ['PINFOLD_TOKEN']}"}
    answer = requests.delete(url, headers=headers, timeout=60)
    if answer.status_code not in (200, 204, 404, 409):
        raise RuntimeError(f"DELETE {workspace}: {answer.status_code} {answer.text}")


def import_image(name):
    request = {"name": name, "source": {"from": "upload"}}
    ask(
        "POST",
        "images/import",
        params={"request": json.dumps(request)},
        data=tar("etc/hostname", name.encode()),
        headers={"Content-Type": "application/x-tar"},
    )
    return name


def to_be_ended(operation):
    if operation == "image.remove":
        return import_image("ended")
    path, body, keys = FOR_THE_END[operation]
    made = ask("POST", path, json=body).json()
    for key in keys:
        made = made[key]
    return made


def bring(workspace, wanted):
    """Brings a workspace into a state."""
    path = f"workspaces/{workspace}"
    state = ask("GET", path).json()["state"]
    if state == "paused" and wanted != "paused":
        ask("POST", f"{path}/resume")
        state = "running"
    if state == "stopped" and wanted != "stopped":
        ask("POST", f"{path}/start")
        state = "running"
    if state == "running" and wanted != "running":
        ask("POST", f"{path}/{ {'paused': 'pause', 'stopped': 'stop'}[wanted] }")


def existing(case, name):
    """The object that a part of a valid path names."""
    path = case.operation.path
    if name == "ref" and name_of(case) in FOR_THE_END and case.method == "DELETE":
        return None if ANONYMOUS else to_be_ended(name_of(case))
    if name == "exec":
        return REAL["exec"]
    if name == "port":
        return REAL["port"]
    if name != "ref":
        return None
    if "/workspaces/{ref}" in path:
        ends = case.method == "DELETE" or path.rsplit("/", 1)[-1] in ENDS
        return REAL["victim" if ends else "workspace"]
    if "/sessions/{ref}" in path:
        return REAL["session"]
    return next((REAL[kind] for kind in ("snapshot", "token", "image") if f"/{kind}s/" in path), None)


def walled(body):
    """The same, without the limits that the server under test cannot give: the filesystem does not
    keep one (503), and another is above its ceiling (422)."""
    limits = dict(body.get("limits") or {})
    if not limits:
        return body
    if (limits.get("open_files") or 0) > OPEN_FILES:
        limits["open_files"] = OPEN_FILES
    return {**body, "limits": {**limits, "disk_inodes": None}}


if not ANONYMOUS:
    import_image(REAL["image"])


@schemathesis.hook
def before_call(context, case, kwargs):
    operation = name_of(case)
    sent[operation] += 1
    real = sent[operation] % 3 != 0
    if valid(case, ParameterLocation.PATH) and real:
        for name in case.path_parameters or {}:
            found = existing(case, name)
            if found is not None:
                case.path_parameters[name] = found
        if operation in BEFORE and not ANONYMOUS:
            bring(REAL["victim"], BEFORE[operation])
    if valid(case, ParameterLocation.HEADER) and case.headers:
        if "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = str(uuid.uuid4())
        if "Pinfold-Session" in case.headers:
            case.headers["Pinfold-Session"] = REAL["session"]
        if "Range" in case.headers and real:
            case.headers["Range"] = "bytes=1-3"
    if valid(case, ParameterLocation.QUERY) and case.query and operation in FILES and real:
        case.query["path"] = FILES[operation]
    if not valid(case, ParameterLocation.BODY):
        return
    body = case.body if isinstance(case.body, dict) else {}
    if operation in HARMLESS:
        # The request is in the query or in the body, never in both.
        if case.media_type == "application/json":
            if valid(case, ParameterLocation.QUERY) and case.query:
                case.query.pop("request", None)
            case.body = HARMLESS[operation]
        elif valid(case, ParameterLocation.QUERY):
            # An upload's request is nowhere but in the query.
            case.query = case.query or {}
            case.query.setdefault("request", json.dumps(UPLOADED[operation]))
    elif operation in ("workspace.fork", "snapshot.fork") and body:
        case.body = {**walled(body), "count": 2, "name": None}
    elif operation == "workspace.create":
        case.body = walled(body)
    elif operation == "workspace.update" and real:
        # What everything else happens in keeps its name, and lives to the end.
        case.body = {**walled(body), "name": None, "ttl_ms": None, "idle_ms": None}
    elif BODIES.get(operation) is not None and real:
        case.body = BODIES[operation]


@schemathesis.hook
def after_call(context, case, response):
    operation = name_of(case)
    counts[operation][f"{response.status_code // 100}xx"] += 1
    if operation == "workspace.create" and response.status_code == 201:
        made.append(json.loads(response.content)["id"])
    elif operation in ("workspace.fork", "snapshot.fork") and response.status_code == 200:
        outcomes = json.loads(response.content)
        made.extend(one["workspace"]["id"] for one in outcomes if "workspace" in one)
    while len(made) > KEPT:
        forget(made.popleft())


@atexit.register
def report():
    if "PINFOLD_COUNTS" in os.environ:
        with open(os.environ["PINFOLD_COUNTS"], "w", encoding="utf-8") as file:
            json.dump(counts, file)


if ANONYMOUS:

    @schemathesis.check
    def nobody_is_let_in(ctx, response, case):
        """Whatever was asked, the answer is the same, but to a head that no connection takes."""
        if response.status_code in (414, 431):
            return
        assert response.status_code == 401, response.status_code
        if case.method != "HEAD":
            assert response.headers["content-type"] == ["application/problem+json"]
