"""A real session with the official Python client.

Usage: session.py stdio PINFOLD HOME MODE, over standard input and output; or
session.py http URL TOKEN MODE. MODE is the client's: "legacy" begins with initialize, "auto" takes
the newest revision. Ends with an assertion where something is not as it should be.
"""

import asyncio
import base64
import sys
import time

import httpx2
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

TRANSPORT, PLACE, KEY, MODE = sys.argv[1:]


def server():
    """Where the client connects."""
    if TRANSPORT == "stdio":
        return StdioServerParameters(command=PLACE, args=["mcp"], env={"PINFOLD_HOME": KEY})
    headers = {"Authorization": f"Bearer {KEY}"}
    # A command may be silent for long: the client's own limits count, not the connection's.
    return streamable_http_client(PLACE, http_client=httpx2.AsyncClient(headers=headers, timeout=90))


async def call(client, tool, progress=None, **arguments):
    """The structured result of a call that succeeds."""
    result = await client.call_tool(tool, arguments, progress_callback=progress)
    assert not result.is_error, (tool, result.content)
    assert result.content and result.content[0].text, (tool, "no text")
    return result.structured_content


async def refused(client, tool, code, **arguments):
    """The text of a call that is refused with this code."""
    result = await client.call_tool(tool, arguments)
    text = result.content[0].text
    assert result.is_error and code in text, (tool, text)
    assert result.meta["io.pinfold/error"]["code"] == code, result.meta
    return text


async def tools(client):
    listed = (await client.list_tools()).tools
    names = [tool.name for tool in listed]
    assert len(names) == len(set(names)) and "exec" in names, names
    for tool in listed:
        hints = tool.annotations
        assert tool.output_schema and tool.description and hints.title, tool.name
        assert hints.open_world_hint == (tool.name == "image_pull"), tool.name
        assert not (hints.read_only_hint and hints.destructive_hint), tool.name
        assert tool.input_schema["additionalProperties"] is False, tool.name


async def commands(client, ws):
    ran = await call(client, "exec", workspace=ws, command="echo out; echo err >&2; exit 3")
    assert (ran["stdout"], ran["stderr"], ran["exit_code"]) == ("out\n", "err\n", 3), ran
    ran = await call(client, "exec", workspace=ws, argv=["cat"], stdin="given")
    assert ran["stdout"] == "given", ran
    ran = await call(client, "exec", workspace=ws, argv=["no-such-program"])
    assert (ran["reason"], ran["exit_code"]) == ("not_started", 127), ran
    ran = await call(client, "exec", workspace=ws, command="sleep 60", timeout_ms=300)
    assert (ran["reason"], ran["exit_code"]) == ("timed_out", 124), ran
    # Head and tail stay, cut between characters, and the rest can be read.
    ran = await call(client, "exec", workspace=ws, command="for i in $(seq 9999); do printf 'é%04d\\n' $i; done")
    assert ran["stdout"].startswith("é0001\n") and ran["stdout"].endswith("é9999\n"), ran["notes"]
    assert ran["stdout_bytes"] == 9999 * 7 and len(ran["stdout"].encode()) < 30_100, ran["notes"]
    assert "\ufffd" not in ran["stdout"] and ran["output_uri"], ran["notes"]
    whole = await client.read_resource(ran["output_uri"])
    assert len(whole.contents[0].text.encode()) == 9999 * 7
    part = await call(client, "exec_output", workspace=ws, exec_id=ran["exec_id"], **{"from": 700})
    assert part["output"].startswith("é0101\n") and part["more"], part["output"][:20]
    ran = await call(client, "exec", workspace=ws, command="printf 'a\\377b'")
    assert ran["stdout"] == "a\ufffdb" and ran["notes"], ran


async def progress(client, ws):
    seen = []

    async def told(done, total, message):
        seen.append((done, message))

    lines = "for i in 1 2 3; do echo line-$i; sleep 0.7; done"
    ran = await call(client, "exec", told, workspace=ws, command=lines)
    assert ran["exit_code"] == 0, ran
    assert [done for done, _ in seen] == sorted({done for done, _ in seen}), seen
    assert any("line-1" in message for _, message in seen), seen
    assert len(seen) >= 2, seen


async def cancellation(client, ws):
    # The second process leaves the first one's group and session.
    command = "echo $$ > /tmp/first; setsid sleep 4321 & sleep 4322"
    running = asyncio.create_task(client.call_tool("exec", {"workspace": ws, "command": command}))
    await appears(client, ws, "/tmp/first")
    running.cancel()
    try:
        await running
    except asyncio.CancelledError:
        pass
    until = time.monotonic() + 20
    while True:
        ran = await call(client, "exec", workspace=ws, command="pgrep -f 'sleep 432[12]' | wc -l")
        if ran["stdout"].strip() == "0":
            return
        assert time.monotonic() < until, "a cancelled command goes on"


async def appears(client, ws, path):
    until = time.monotonic() + 20
    while (await client.call_tool("file_list", {"workspace": ws, "path": path})).is_error:
        assert time.monotonic() < until, path


async def background(client, ws):
    command = "echo ready; read -r line < /tmp/go; echo went $line; exit 5"
    await call(client, "exec", workspace=ws, argv=["mkfifo", "/tmp/go"])
    started = await call(client, "exec_start", workspace=ws, command=command)
    exec_id = started["command"]["exec_id"]
    part = await call(client, "exec_output", workspace=ws, exec_id=exec_id, wait_ms=20_000)
    assert part["output"] == "ready\n" and part["more"], part
    listed = await call(client, "exec_list", workspace=ws)
    assert any(one["exec_id"] == exec_id and one["running"] for one in listed["commands"]), listed
    await call(client, "exec", workspace=ws, command="echo far > /tmp/go")
    after = {"from": part["next"], "wait_ms": 20_000, "until_end": True}
    part = await call(client, "exec_output", workspace=ws, exec_id=exec_id, **after)
    assert (part["output"], part["command"]["exit_code"]) == ("went far\n", 5), part
    started = await call(client, "exec_start", workspace=ws, command="sleep 1000")
    exec_id = started["command"]["exec_id"]
    await call(client, "exec_kill", workspace=ws, exec_id=exec_id, signal=9)
    end = {"wait_ms": 20_000, "until_end": True}
    part = await call(client, "exec_output", workspace=ws, exec_id=exec_id, **end)
    assert part["command"]["reason"] == "signaled", part


async def files(client, ws):
    path = "/data/deep/a.txt"
    await call(client, "file_write", workspace=ws, path=path, content="one\ntwo\nthree\n")
    got = await call(client, "file_read", workspace=ws, path=path)
    assert got["content"] == "one\ntwo\nthree\n" and "next_line" not in got, got
    got = await call(client, "file_read", workspace=ws, path=path, line=2, lines=1)
    assert (got["content"], got["next_line"]) == ("two\n", 3), got
    edits = [{"old": "two", "new": "2"}]
    assert (await call(client, "file_edit", workspace=ws, path=path, edits=edits))["replaced"] == 1
    text = await refused(client, "file_edit", "unprocessable", workspace=ws, path=path, edits=edits)
    assert "file_read" in text, text
    found = await call(client, "file_search", workspace=ws, path="/data", pattern="^t.*e$")
    assert [(one["path"], one["line"]) for one in found["matches"]] == [(path, 3)], found
    found = await call(client, "file_search", workspace=ws, path="/data", glob="*.txt")
    assert [one["path"] for one in found["matches"]] == [path], found
    found = await call(client, "file_search", workspace=ws, path="/data", pattern="nothing-like-it")
    assert found["matches"] == [] and not found["more"], found
    raw = bytes(range(256))
    coded = base64.b64encode(raw).decode()
    await call(client, "file_write", workspace=ws, path="/data/b", content_base64=coded, mode="0600")
    text = await refused(client, "file_read", "unprocessable", workspace=ws, path="/data/b")
    assert "base64" in text, text
    got = await call(client, "file_read", workspace=ws, path="/data/b", encoding="base64")
    assert base64.b64decode(got["content"]) == raw, got
    listed = await call(client, "file_list", workspace=ws, path="/data")
    kinds = {one["name"]: (one["kind"], one["mode"]) for one in listed["entries"]}
    assert kinds["b"] == ("file", "0600") and kinds["deep"][0] == "directory", kinds
    await call(client, "file_manage", workspace=ws, action="move", path="/data/b", to="/data/c")
    await call(client, "file_manage", workspace=ws, action="remove", path="/data/c")
    await refused(client, "file_list", "not_found", workspace=ws, path="/data/c")
    resource = await client.read_resource(f"pinfold://workspace/{ws}/file{path}")
    assert resource.contents[0].text == "one\n2\nthree\n", resource


async def snapshots_and_forks(client, ws):
    taken = (await call(client, "snapshot_create", workspace=ws, name="before"))["snapshot"]
    await call(client, "file_manage", workspace=ws, action="remove", path="/data", recursive=True)
    await call(client, "snapshot_restore", workspace=ws, snapshot="before")
    assert (await call(client, "file_list", workspace=ws, path="/data/deep"))["entries"]
    lines = [f"echo child {number} > /result; exit {number}" for number in (1, 2, 3)]
    forked = await call(client, "workspace_fork", workspace=ws, name="try", commands=lines)
    for number, child in enumerate(forked["children"], 1):
        assert child["name"] == f"try-{number}", child
        end = {"exec_id": child["exec_id"], "wait_ms": 20_000, "until_end": True}
        part = await call(client, "exec_output", workspace=child["name"], **end)
        assert part["command"]["exit_code"] == number, part
        got = await call(client, "file_read", workspace=child["id"], path="/result")
        assert got["content"] == f"child {number}\n", got
        await call(client, "workspace_destroy", workspace=child["id"])
    one = await call(client, "workspace_fork", snapshot=taken["id"], name="one")
    await call(client, "workspace_destroy", workspace=one["children"][0]["name"])
    listed = await call(client, "snapshot_list", workspace=ws)
    assert [each["name"] for each in listed["snapshots"]] == ["before"], listed
    await call(client, "snapshot_remove", snapshot=taken["id"])


async def life(client, ws):
    shown = await call(client, "workspace_info", workspace=ws)
    assert shown["workspace"]["state"] == "running" and shown["uses"]["uptime_ms"] >= 0, shown
    for action, state in (("pause", "paused"), ("resume", "running"), ("stop", "stopped")):
        done = await call(client, "workspace_control", workspace=ws, action=action)
        assert done["workspace"]["state"] == state, done
    text = await refused(client, "exec", "conflict", workspace=ws, command="true")
    assert "workspace_control" in text, text
    await call(client, "workspace_control", workspace=ws, action="start")
    done = await call(client, "workspace_update", workspace=ws, ttl_ms=3_600_000, limits={"pids": 99})
    assert done["workspace"]["expires_at"] and done["workspace"]["limits"]["pids"] == 99, done
    logs = await call(client, "workspace_logs", workspace=ws, limit=1000)
    assert any(event["kind"] == "workspace.create" for event in logs["events"]), logs
    shown = await call(client, "server_info")
    assert "host" in [name for image in shown["images"] for name in image["names"]], shown
    resources = (await client.list_resources()).resources
    assert "pinfold://workspaces" in [str(one.uri) for one in resources], resources
    assert len((await client.list_resource_templates()).resource_templates) == 4


async def refusals(client, ws):
    text = await refused(client, "exec", "not_found", workspace="nobody", command="true")
    assert "workspace_list" in text and "pinfold ls" not in text, text
    await refused(client, "exec", "invalid_name", workspace="../etc", command="true")
    await refused(client, "exec", "invalid_argument", workspace=ws)
    await refused(client, "exec", "invalid_argument", workspace=ws, command="true", bogus=1)
    await refused(client, "exec", "invalid_argument", workspace=ws, command=7)
    await refused(client, "exec", "invalid_argument", workspace=ws, command="true", timeout_ms=0)
    await refused(client, "file_read", "invalid_path", workspace=ws, path="relative")
    for wrong in ("no_such_tool", ""):
        try:
            await client.session.call_tool(wrong, {})
            raise AssertionError(wrong)
        except MCPError as error:
            assert error.code == -32602, error
    try:
        await client.read_resource("pinfold://nothing")
        raise AssertionError("a resource that is none")
    except MCPError as error:
        assert error.code in (-32002, -32602), error


async def main():
    async with Client(server(), mode=MODE, read_timeout_seconds=60) as client:
        if MODE == "legacy":
            assert client.protocol_version == "2025-11-25", client.protocol_version
            assert client.server_info.name == "pinfold" and client.instructions
        else:
            assert client.protocol_version == "2026-07-28", client.protocol_version
        await tools(client)
        made = await call(client, "workspace_create", name="py", labels={"made": "by test"})
        assert made["workspace"]["state"] == "running", made
        listed = await call(client, "workspace_list")
        assert [one["name"] for one in listed["workspaces"]] == ["py"], listed
        for step in (commands, progress, background, files, snapshots_and_forks, refusals, life):
            await step(client, "py")
            print("fine:", step.__name__, flush=True)
        await cancellation(client, made["workspace"]["id"])
        print("fine: cancellation", flush=True)
        await call(client, "workspace_destroy", workspace="py")


asyncio.run(main())
