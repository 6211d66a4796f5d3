"""A stranger to hulld: it knows gRPC and docker's ideas, and learns the rest by asking.

Services, methods and messages come from the manager's reflection; no code is generated. Called as
`stranger.py SOCKET PID SCENARIO`, where PID is hulld's; fails with a traceback.
"""

import functools
import os
import sys
import threading
import time

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

LIMIT = 60
SLEEPER = "trap 'exit 7' TERM; while :; do sleep 0.05; done"


class Service:
    """The methods of a service as Python functions: Service.Method(field=value, ...)."""

    def __init__(self, channel, pool, name):
        self.channel = channel
        self.pool = pool
        self.methods = pool.FindServiceByName(name).methods_by_name
        self.name = name

    def message(self, kind, /, **fields):
        return GetMessageClass(self.pool.FindMessageTypeByName("hull.v1." + kind))(**fields)

    def __getattr__(self, name):
        method = self.methods[name]
        request, response = (GetMessageClass(t) for t in (method.input_type, method.output_type))
        kind = "%s_%s" % (
            "stream" if method.client_streaming else "unary",
            "stream" if method.server_streaming else "unary",
        )
        stub = getattr(self.channel, kind)(
            "/%s/%s" % (self.name, name), request.SerializeToString, response.FromString
        )

        def call(requests=None, timeout=LIMIT, **fields):
            if method.client_streaming:
                return stub((request(**each) for each in requests), timeout=timeout)
            return stub(request(**fields), timeout=timeout)

        return call


class Manager:
    def __init__(self, socket):
        # grpc's own choice for a unix socket is its path, escaped; Rust's h2 takes no authority
        # with an escape, and resets the stream.
        options = [("grpc.default_authority", "localhost")]
        self.channel = grpc.insecure_channel("unix:" + socket, options)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.database)

    def service(self, name):
        return Service(self.channel, self.pool, name)

    def started(self, name, script, **options):
        """A container that runs a line of shell."""
        containers = self.service("hull.v1.Containers")
        options = containers.message(
            "ContainerOptions",
            name=name,
            image="busybox",
            command=["sh", "-c", script],
            network_mode="none",
            **options,
        )
        made = containers.Create(options=options)
        containers.Start(container=made.id)
        return made.id


def refused(code, word, call):
    """The call ends with this code and a sentence that has this word."""
    try:
        answer = call()
        if hasattr(answer, "__iter__"):
            answer = list(answer)
    except grpc.RpcError as error:
        said = error.details()
        assert error.code() == code, (error.code(), said)
        assert word in said and "\n" not in said and "Error {" not in said, said
        return
    raise AssertionError("it was not refused: %r" % (answer,))


def wait_until(what, condition):
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def services(manager, _pid):
    found = set(manager.database.get_services())
    for name in ("Containers", "Images", "Volumes", "System"):
        assert "hull.v1." + name in found, found
        assert manager.service("hull.v1." + name).methods, name
    assert "grpc.health.v1.Health" in found, found
    health = manager.service("grpc.health.v1.Health")
    for name in ("", "hull.v1.Images", "hull.v1.System"):
        status = health.Check(service=name).status
        assert status == 1, (name, status)
    refused(grpc.StatusCode.NOT_FOUND, "", lambda: health.Check(service="hull.v1.None"))
    # What is asked for is told whole: every message of every method, with what it refers to.
    for name in sorted(found):
        for method in manager.service(name).methods.values():
            assert method.input_type.full_name and method.output_type.full_name
    system = manager.service("hull.v1.System")
    assert system.Ping() is not None
    assert system.Version().version


def life(manager, _pid):
    containers = manager.service("hull.v1.Containers")
    container = manager.started("life", "echo out; echo err >&2; exit 5")
    assert containers.Wait(container="life").exit_code == 5
    listed = containers.List(all=True).containers
    assert [(one.id, one.name) for one in listed] == [(container, "life")], listed
    status = containers.Inspect(container=container[:6]).container.state
    exited = containers.message("ContainerState", status="EXITED").status
    assert (status.status, status.exit_code) == (exited, 5), status
    assert len(containers.List().containers) == 0
    containers.Remove(container="life")
    assert len(containers.List(all=True).containers) == 0
    images = manager.service("hull.v1.Images").List().images
    assert [list(image.references) for image in images] == [["docker.io/library/busybox:latest"]]


def logs(manager, _pid):
    containers = manager.service("hull.v1.Containers")
    script = "for n in 1 2 3; do echo line $n; echo error $n >&2; done; sleep 0.3; echo late"
    manager.started("logs", script)
    follow = functools.partial(
        containers.Logs, container="logs", stdout=True, stderr=True, follow=True
    )
    # Follows the container to its end.
    entries = list(follow(timestamps=True))
    text = [b"", b""]
    for entry in entries:
        text[entry.stream] += entry.data
        assert entry.time.seconds > 1_500_000_000, entry
    assert text[0] == b"line 1\nline 2\nline 3\nlate\n", text
    assert text[1] == b"error 1\nerror 2\nerror 3\n", text
    tail = list(containers.Logs(container="logs", stdout=True, tail=1))
    assert [entry.data for entry in tail] == [b"late\n"], tail
    containers.Remove(container="logs")


def run_exec(manager, _pid):
    containers = manager.service("hull.v1.Containers")
    manager.started("exec", SLEEPER)
    made = containers.CreateExec(
        container="exec", command=["sh", "-c", "cat; echo end >&2; exit 9"], stdin=True
    )
    requests = [
        {"open": {"exec_id": made.exec_id}},
        {"stdin": b"some "},
        {"stdin": b"bytes"},
        {"close_stdin": True},
    ]
    text, code = {"stdout": b"", "stderr": b""}, None
    for answer in containers.StartExec(requests):
        kind = answer.WhichOneof("message")
        if kind in text:
            text[kind] += getattr(answer, kind)
        elif kind == "ended":
            code = answer.ended.exit_code
    assert (text, code) == ({"stdout": b"some bytes", "stderr": b"end\n"}, 9), (text, code)
    known = containers.InspectExec(exec_id=made.exec_id)
    assert not known.running and known.exit_code == 9, known
    # A terminal, and one that nobody waits for.
    made = containers.CreateExec(container="exec", command=["tty"], tty=True)
    shown = b"".join(a.stdout for a in containers.StartExec([{"open": {"exec_id": made.exec_id}}]))
    assert shown.startswith(b"/dev/pts/") and shown.endswith(b"\r\n"), shown
    made = containers.CreateExec(container="exec", command=["touch", "/made"])
    list(containers.StartExec([{"open": {"exec_id": made.exec_id, "detach": True}}]))
    wait_until("it ran", lambda: not containers.InspectExec(exec_id=made.exec_id).running)
    assert containers.StatPath(container="exec", path="/made").name == "made"
    containers.Remove(container="exec", force=True)


def errors(manager, _pid):
    containers = manager.service("hull.v1.Containers")
    images = manager.service("hull.v1.Images")
    code = grpc.StatusCode
    manager.started("one", SLEEPER)

    def create(**options):
        options.setdefault("image", "busybox")
        options.setdefault("command", ["true"])
        options.setdefault("network_mode", "none")
        return lambda: containers.Create(options=containers.message("ContainerOptions", **options))

    exec_of = lambda name: containers.CreateExec(container=name, command=["true"])
    for expected, word, call in [
        (code.NOT_FOUND, "No such container: two", lambda: containers.Start(container="two")),
        (code.NOT_FOUND, "No such container", lambda: containers.Logs(container="two", stdout=True)),
        (code.NOT_FOUND, "No such container", lambda: containers.Export(container="two")),
        (code.NOT_FOUND, "No such container", lambda: exec_of("two")),
        (code.NOT_FOUND, "", lambda: containers.StartExec([{"open": {"exec_id": "f" * 64}}])),
        (code.NOT_FOUND, "No such image: none", create(image="none")),
        (code.NOT_FOUND, "No such image: none", lambda: images.Remove(image="none")),
        (code.ALREADY_EXISTS, "/one", create(name="one")),
        (code.FAILED_PRECONDITION, "", lambda: containers.Remove(container="one")),
        (code.FAILED_PRECONDITION, "", lambda: images.Remove(image="busybox")),
        (code.FAILED_PRECONDITION, "", lambda: containers.Unpause(container="one")),
        (code.INVALID_ARGUMENT, "", create(name="../one")),
        (code.INVALID_ARGUMENT, "reference", create(image="UPPER")),
        (code.INVALID_ARGUMENT, "", lambda: containers.Kill(container="one", signal="NONE")),
        (code.INVALID_ARGUMENT, "", lambda: containers.StartExec([])),
        (code.INVALID_ARGUMENT, "", lambda: containers.StartExec([{"stdin": b"x"}])),
        (code.INVALID_ARGUMENT, "", lambda: containers.List(filters=[{"key": "x", "values": ["y"]}])),
        (code.INVALID_ARGUMENT, "no options", lambda: images.Import([{"chunk": b"x"}])),
        (code.INVALID_ARGUMENT, "invalid archive", lambda: images.Load([{"chunk": b"x" * 600}])),
    ]:
        refused(expected, word, call)
    # What is no message, and what is no method.
    raw = lambda path, body: manager.channel.unary_unary(path)(body, timeout=LIMIT)
    wire = "/hull.v1.Containers/"
    refused(code.UNIMPLEMENTED, "", lambda: raw(wire + "None", b""))
    refused(code.UNIMPLEMENTED, "", lambda: raw("/hull.v9.Containers/List", b""))
    for body in (b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xff\xff"):
        refused(code.INTERNAL, "decod", lambda: raw(wire + "Start", body))
    # More than a message may have: nothing is kept of it, and the connection lives on.
    big = [{"chunk": b"x" * (5 << 20)}]
    refused(code.RESOURCE_EXHAUSTED, "large", lambda: images.Load(big))
    assert containers.Inspect(container="one").container.name == "one"
    containers.Remove(container="one", force=True)


def deadlines(manager, pid):
    containers = manager.service("hull.v1.Containers")
    system = manager.service("hull.v1.System")
    manager.started("one", SLEEPER)
    list(containers.Logs(container="one", stdout=True))
    open_before = descriptors(pid)
    late = grpc.StatusCode.DEADLINE_EXCEEDED
    for call in (
        lambda: containers.Wait(container="one", timeout=0.3),
        lambda: containers.Logs(container="one", stdout=True, follow=True, timeout=0.3),
        lambda: containers.Stats(containers=["one"], stream=True, timeout=0.3),
        lambda: system.Events(timeout=0.3),
        lambda: containers.Attach(opened(), timeout=0.3),
    ):
        begun = time.monotonic()
        refused(late, "", call)
        assert time.monotonic() - begun < 10
    wait_until("what they had open is closed", lambda: descriptors(pid) <= open_before)
    # The container does not mind.
    assert containers.Inspect(container="one").container.state.exit_code == 0
    assert len(containers.List().containers) == 1
    containers.Remove(container="one", force=True)


def opened():
    """An attachment that never ends."""
    yield {"open": {"container": "one", "stdout": True}}
    threading.Event().wait(5)


def cancellation(manager, pid):
    containers = manager.service("hull.v1.Containers")
    images = manager.service("hull.v1.Images")
    system = manager.service("hull.v1.System")
    manager.started("one", "echo begun; " + SLEEPER)
    follow = lambda: containers.Logs(container="one", stdout=True, follow=True)
    warm = follow()
    next(warm)
    warm.cancel()
    idle = lambda: (descriptors(pid), len(os.listdir("/proc/%d/task" % pid)))
    before = descriptors(pid)
    streams = [follow() for _ in range(50)]
    for stream in streams:
        assert next(stream).data == b"begun\n"
    events = [system.Events() for _ in range(50)]
    assert descriptors(pid) > before, "each reads the log"
    for stream in streams + events:
        stream.cancel()
        refused(grpc.StatusCode.CANCELLED, "", lambda: stream)
    wait_until("all is closed: %s" % (idle(),), lambda: descriptors(pid) <= before)
    # Half an image leaves nothing.
    gone = threading.Event()

    def half():
        yield {"options": {"reference": "half"}}
        yield {"chunk": bytes(1 << 20)}
        gone.wait(LIMIT)

    importing = images.Import(half())
    time_to_begin = time.monotonic() + 0.2
    wait_until("it began", lambda: time.monotonic() > time_to_begin)
    importing.cancel()
    gone.set()
    wait_until("nothing of it is open", lambda: descriptors(pid) <= before)
    assert len(images.List(all=True).images) == 1
    containers.Remove(container="one", force=True)


SCENARIOS = (services, life, logs, run_exec, errors, deadlines, cancellation)

if __name__ == "__main__":
    socket, pid, wanted = sys.argv[1:]
    {scenario.__name__: scenario for scenario in SCENARIOS}[wanted](Manager(socket), int(pid))
