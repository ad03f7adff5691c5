"""What a generator of random requests cannot know: which objects there are, that a key is for one
call only, and which valid requests are too much for the machine that runs the tests."""

import os
import uuid

import schemathesis
from schemathesis.core.parameters import ParameterLocation

WORKSPACE = os.environ["PINFOLD_WORKSPACE"]
SNAPSHOT = os.environ["PINFOLD_SNAPSHOT"]
# Ended by its own calls: another workspace than the one that everything else happens in.
VICTIM = os.environ["PINFOLD_VICTIM"]
SESSION = os.environ["PINFOLD_SESSION"]
ENDS = ("start", "stop", "pause", "resume", "restore", "token", "fork")
# Valid, and done or refused at once: no registry, no archive and no directory of the host is read.
HARMLESS = {
    "image.pull": {"image": "127.0.0.1:1/none"},
    "image.import": {"name": "none", "source": {"from": "path", "path": "/nonexistent/pinfold"}},
    "image.build": {"name": "none", "steps": "FROM none-such"},
}
sent = 0


def valid(case, location):
    return case.meta is None or not case.meta.is_negative_at(location)


def existing(case):
    """The object that a valid path names, for two of three calls."""
    path = case.operation.path
    if "/workspaces/{ref}" in path:
        ends = case.method == "DELETE" or path.rsplit("/", 1)[-1] in ENDS
        return VICTIM if ends else WORKSPACE
    if "/snapshots/{ref}" in path and case.method != "DELETE":
        return SNAPSHOT
    if "/images/{ref}" in path and case.method != "DELETE" and not path.endswith("/export"):
        return "host"
    return None


@schemathesis.hook
def before_call(context, case, kwargs):
    global sent
    sent += 1
    operation = case.operation.definition.raw.get("operationId")
    if valid(case, ParameterLocation.PATH) and case.path_parameters and "ref" in case.path_parameters:
        name = existing(case)
        if name is not None and sent % 3 != 0:
            case.path_parameters["ref"] = name
    if valid(case, ParameterLocation.HEADER) and case.headers:
        if "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = str(uuid.uuid4())
        if "Pinfold-Session" in case.headers:
            case.headers["Pinfold-Session"] = SESSION
    if not valid(case, ParameterLocation.BODY):
        return
    body = case.body if isinstance(case.body, dict) else {}
    if operation in HARMLESS:
        # The request is in the query or in the body, never in both.
        if case.media_type == "application/json":
            if valid(case, ParameterLocation.QUERY):
                case.query.pop("request", None)
            case.body = HARMLESS[operation]
    elif operation in ("workspace.fork", "snapshot.fork") and body:
        case.body = {**body, "count": 2, "name": None}


if os.environ.get("PINFOLD_ANONYMOUS"):

    @schemathesis.check
    def nobody_is_let_in(ctx, response, case):
        """Whatever was asked, the answer is the same."""
        assert response.status_code == 401, response.status_code
        if case.method != "HEAD":
            assert response.headers["content-type"] == ["application/problem+json"]
