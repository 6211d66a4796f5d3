//! What is printed: ps, list, events, spec, features, logs, version, help.

use std::fs;

use hull_integration::{
    Bundle, Container, Invocation, Peer, Running, SOON, cgroup, peer_lacks, require, runtime,
    tests, wait_until,
};
use serde_json::{Value, json};

tests![
    ps_lists_pids_as_json,
    ps_lists_processes_as_a_table,
    ps_refuses_an_unknown_format,
    list_shows_every_container,
    list_prints_a_table_and_ids_only,
    list_of_an_empty_root_is_empty,
    list_shows_a_container_whose_process_is_gone,
    events_give_statistics_once,
    events_give_statistics_at_an_interval,
    events_report_memory_exhaustion,
    events_report_a_kill_for_want_of_memory_once,
    events_end_with_the_container,
    spec_writes_a_configuration_that_runs,
    spec_does_not_overwrite,
    a_rootless_spec_maps_the_caller,
    features_are_what_the_specification_asks,
    the_version_is_what_callers_parse,
    help_goes_to_standard_output,
    errors_are_logged_as_json,
    errors_are_logged_as_text,
    the_log_is_appended_to,
    a_log_that_cannot_be_written_is_an_error,
    an_unknown_log_format_is_refused,
    debug_says_more,
    explain_says_what_create_would_do,
    explain_refuses_what_create_refuses,
];

fn running(bundle: Bundle) -> Container {
    let container = Container::new(bundle);
    container.run_detached().ok();
    container
}

fn ps_lists_pids_as_json() {
    let container = running(Bundle::shell("sleep 1000 & sleep 1000; true"));
    wait_until("three processes", SOON, || container.processes().len() >= 3);
    let pids = container.invoke(&["ps", "--format", "json", &container.id]).run().ok().json();
    let pids = pids.as_array().expect("a list").clone();
    assert_eq!(pids.len(), 3, "{pids:?}");
    assert!(pids.contains(&json!(container.pid())));
}

fn ps_lists_processes_as_a_table() {
    let container = running(Bundle::new().args(&["sleep", "1234"]));
    let table = container.command("ps", &[]).ok().stdout;
    let mut lines = table.lines();
    assert!(lines.next().is_some_and(|line| line.contains("PID")), "{table}");
    if runtime().peer != Peer::Crun {
        assert!(lines.next().is_some_and(|line| line.contains("sleep 1234")), "{table}");
        let table = container.command("ps", &["-o", "pid,comm"]).ok().stdout;
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.contains("sleep") && !table.contains("1234"), "{table}");
    }
}

fn ps_refuses_an_unknown_format() {
    let container = running(Bundle::sleeper());
    container.invoke(&["ps", "--format", "xml", &container.id]).run().fails();
}

fn list_shows_every_container() {
    let container = Container::new(Bundle::sleeper());
    container.create().ok();
    let list = container.invoke(&["list", "--format", "json"]).run().ok().json();
    let entries = list.as_array().expect("a list");
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!((&entry["id"], &entry["status"]), (&json!(container.id), &json!("created")));
    assert_eq!(entry["pid"], container.pid());
    assert_eq!(entry["bundle"], json!(container.bundle.dir()));
    assert!(entry["created"].is_string() && entry["owner"] == "root", "{entry}");
    let mut second = Container::new(Bundle::new());
    second.id = format!("{}-second", container.id);
    container.invoke(&["create", "--bundle"]).arg(second.bundle.dir()).arg(&second.id).run().ok();
    let list = container.invoke(&["list", "-f", "json"]).run().ok().json();
    assert_eq!(list.as_array().map(Vec::len), Some(2));
    container.invoke(&["delete", "--force", &second.id]).run().ok();
}

fn list_prints_a_table_and_ids_only() {
    let container = running(Bundle::sleeper());
    let table = container.invoke(&["list"]).run().ok().stdout;
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let wanted = if runtime().peer == Peer::Crun { "NAME" } else { "ID" };
    assert_eq!(header[..4], [wanted, "PID", "STATUS", "BUNDLE"]);
    let row = lines.next().unwrap_or_default();
    assert!(row.starts_with(&container.id) && row.contains("running"), "{table}");
    let quiet = container.invoke(&["list", "-q"]).run().ok();
    assert_eq!(quiet.text(), container.id);
}

fn list_of_an_empty_root_is_empty() {
    let container = Container::new(Bundle::new());
    let list = container.invoke(&["list", "--format", "json"]).run().ok().json();
    assert!(list.is_null() || list == json!([]), "{list}");
    assert_eq!(container.invoke(&["list", "-q"]).run().ok().text(), "");
}

fn list_shows_a_container_whose_process_is_gone() {
    let container = Container::new(Bundle::new());
    container.create().ok();
    container.start().ok();
    container.wait_status("stopped");
    let list = container.invoke(&["list", "--format", "json"]).run().ok().json();
    assert_eq!((&list[0]["status"], &list[0]["pid"]), (&json!("stopped"), &json!(0)));
}

fn stats(event: &Value, id: &str) {
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(id)));
    let data = &event["data"];
    // What the callers read.
    assert!(data["cpu"]["usage"]["total"].as_u64().is_some_and(|total| total > 0), "{data}");
    assert!(data["memory"]["usage"]["usage"].as_u64().is_some_and(|usage| usage > 0), "{data}");
    assert!(data["memory"]["usage"]["limit"].is_u64(), "{data}");
    assert!(data["memory"]["raw"].is_object(), "{data}");
    assert!(data["pids"]["current"].as_u64().is_some_and(|count| count > 0), "{data}");
}

fn events_give_statistics_once() {
    peer_lacks!("crun 1.8", "no events");
    let container = running(Bundle::sleeper());
    let output = container.invoke(&["events", "--stats", &container.id]).run().ok();
    assert_eq!(output.stdout.lines().count(), 1, "one line an event");
    stats(&output.json(), &container.id);
}

fn events_give_statistics_at_an_interval() {
    peer_lacks!("crun 1.8", "no events");
    let container = running(Bundle::sleeper());
    let events = container.invoke(&["events", "--interval", "100ms", &container.id]).start();
    wait_until("three events", SOON, || events.stdout().lines().count() >= 3);
    for line in events.stdout().lines().take(2) {
        stats(&serde_json::from_str(line).expect("JSON"), &container.id);
    }
    container.delete_force().ok();
    events.wait();
}

fn events_report_memory_exhaustion() {
    peer_lacks!("crun 1.8", "no events");
    let memory = json!({ "limit": 24 << 20, "swap": 24 << 20 });
    let container = running(Bundle::sleeper().set("/linux/resources/memory", memory));
    let events = container.invoke(&["events", "--interval", "10s", &container.id]).start();
    exhaust(&container, &events, 1);
    container.delete_force().ok();
    events.wait();
}

fn oom_events(events: &Running) -> usize {
    events.stdout().matches("\"type\":\"oom\"").count()
}

/// Has processes killed until there are `count` events. The first can come too early: the
/// first statistics come after the interval, so nothing says that it listens.
fn exhaust(container: &Container, events: &Running, count: usize) {
    wait_until("an oom event", 2 * SOON, || {
        container.exec(&["/probe", "alloc", "104857600"]);
        oom_events(events) >= count
    });
}

/// On v2 the file that is watched also changes at other events, here reclaim above
/// memory.high.
fn events_report_a_kill_for_want_of_memory_once() {
    peer_lacks!("crun 1.8", "no events");
    peer_lacks!("runc", "it reports a kill again at each later event");
    require!(cgroup::layout() == cgroup::Layout::V2, "v1 has an event for kills alone");
    let memory = json!({ "limit": 24 << 20, "swap": 24 << 20 });
    let script = "head -c 16777216 /dev/zero > /dev/shm/big; echo; while :; do sleep 1; done";
    let container = running(Bundle::shell(script).set("/linux/resources/memory", memory));
    let directory = container.cgroup("memory");
    let number = |file: &str, name: &str| -> u64 {
        let text = cgroup::read(&directory, file);
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |number| number.trim().parse().expect("a number"))
    };
    // Where the root is in memory too, there is more; the kernel's sum may be 2 s old.
    wait_until("the file", 3 * SOON, || number("memory.stat", "shmem ") >= 16 << 20);
    let events = container.invoke(&["events", "--interval", "60s", &container.id]).start();
    exhaust(&container, &events, 1);
    fs::write(directory.join("memory.high"), "16777216").expect("a limit");
    for _ in 0..5 {
        container.exec(&["true"]).ok();
    }
    assert!(number("memory.events", "high ") > 5, "{}", cgroup::read(&directory, "memory.events"));
    fs::write(directory.join("memory.high"), "max").expect("no limit");
    let before = oom_events(&events);
    exhaust(&container, &events, before + 1);
    // Two kills may be one event; an event without a kill is one too many.
    let (kills, seen) = (number("memory.events", "oom_kill "), oom_events(&events));
    assert!(seen as u64 <= kills, "{seen} events of {kills} kills");
    container.delete_force().ok();
    events.wait();
}

fn events_end_with_the_container() {
    peer_lacks!("crun 1.8", "no events");
    let container = running(Bundle::sleeper());
    let events = container.invoke(&["events", "--interval", "100ms", &container.id]).start();
    wait_until("an event", SOON, || !events.stdout().is_empty());
    container.stop();
    container.delete().ok();
    events.wait();
}

fn spec_writes_a_configuration_that_runs() {
    let mut container = Container::new(Bundle::new());
    let path = container.bundle.dir().join("config.json");
    fs::remove_file(&path).expect("it was written");
    if runtime().peer == Peer::Crun {
        container.invoke(&["spec"]).cwd(container.bundle.dir()).run().ok();
    } else {
        container.invoke(&["spec", "--bundle"]).arg(container.bundle.dir()).cwd("/").run().ok();
    }
    let text = fs::read_to_string(&path).expect("it was written");
    container.bundle.config = serde_json::from_str(&text).expect("JSON");
    assert_eq!(container.bundle.config["process"]["args"], json!(["sh"]));
    assert_eq!(container.bundle.config["root"]["path"], "rootfs");
    container.bundle.config["process"]["terminal"] = json!(false);
    container.bundle.config["process"]["args"] = json!(["echo", "from spec"]);
    container.write_config();
    assert_eq!(container.run().ok().text(), "from spec");
}

fn spec_does_not_overwrite() {
    let container = Container::new(Bundle::new());
    let path = container.bundle.dir().join("config.json");
    let before = fs::read_to_string(&path).expect("it was written");
    container.invoke(&["spec"]).cwd(container.bundle.dir()).run().fails();
    assert_eq!(fs::read_to_string(&path).expect("still there"), before);
}

fn a_rootless_spec_maps_the_caller() {
    peer_lacks!("crun 1.8", "it leaves the mappings out");
    let container = Container::new(Bundle::new());
    let path = container.bundle.dir().join("config.json");
    fs::remove_file(&path).expect("it was written");
    container.invoke(&["spec", "--rootless"]).cwd(container.bundle.dir()).run().ok();
    let config: Value =
        serde_json::from_str(&fs::read_to_string(&path).expect("written")).expect("JSON");
    let namespaces = config["linux"]["namespaces"].as_array().expect("a list");
    assert!(namespaces.iter().any(|one| one["type"] == "user"), "{namespaces:?}");
    assert_eq!(config["linux"]["uidMappings"][0]["containerID"], 0);
    assert_eq!(config["linux"]["uidMappings"][0]["size"], 1);
}

fn features_are_what_the_specification_asks() {
    peer_lacks!("crun 1.8.1", "features is newer");
    let features = Invocation::runtime().arg("features").run().ok().json();
    for name in ["ociVersionMin", "ociVersionMax"] {
        assert!(features[name].as_str().is_some_and(|version| version.starts_with("1.")), "{name}");
    }
    let hooks = features["hooks"].as_array().expect("a list");
    for kind in
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    {
        assert!(hooks.contains(&json!(kind)), "{kind}");
    }
    let options = features["mountOptions"].as_array().expect("a list");
    for option in ["ro", "rw", "bind", "rbind", "nosuid", "noexec", "rprivate", "tmpcopyup"] {
        assert!(options.contains(&json!(option)), "{option}");
    }
    let linux = &features["linux"];
    for kind in ["pid", "network", "mount", "ipc", "uts", "user", "cgroup"] {
        assert!(linux["namespaces"].as_array().expect("a list").contains(&json!(kind)), "{kind}");
    }
    let capabilities = linux["capabilities"].as_array().expect("a list");
    assert!(capabilities.contains(&json!("CAP_SYS_ADMIN")) && capabilities.len() > 35);
    assert_eq!(linux["cgroup"]["v1"], true);
    assert_eq!(linux["seccomp"]["enabled"], true);
    let actions = linux["seccomp"]["actions"].as_array().expect("a list");
    for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY", "SCMP_ACT_LOG"] {
        assert!(actions.contains(&json!(action)), "{action}");
    }
    assert!(linux["apparmor"]["enabled"].is_boolean());
}

fn the_version_is_what_callers_parse() {
    for option in ["--version", "-v"] {
        if option == "-v" && runtime().peer == Peer::Crun {
            continue;
        }
        let output = Invocation::runtime().arg(option).run().ok();
        let lines: Vec<&str> = output.stdout.lines().collect();
        let words: Vec<&str> = lines[0].split(' ').collect();
        assert_eq!(words[1], "version", "{}", output.stdout);
        assert!(words[2].contains('.'), "{}", output.stdout);
        assert!(lines.iter().any(|line| line.starts_with("spec: 1.")), "{}", output.stdout);
    }
}

fn help_goes_to_standard_output() {
    for words in [&["--help"][..], &["create", "--help"], &["exec", "-h"]] {
        if runtime().peer == Peer::Crun && words.contains(&"-h") {
            continue;
        }
        let output = Invocation::runtime().args(words).run().ok();
        assert!(!output.stdout.trim().is_empty() && output.stderr.is_empty(), "{words:?}");
    }
}

/// Runs `state` of a missing container with a log.
fn failing(container: &Container, options: &[&str]) -> hull_integration::Output {
    let mut words = options.to_vec();
    words.extend(["state", &container.id]);
    container.invoke(&words).run()
}

fn errors_are_logged_as_json() {
    let container = Container::new(Bundle::new());
    let log = container.bundle.dir().join("log.json");
    let path = log.to_str().expect("text");
    let output = failing(&container, &["--log", path, "--log-format", "json"]).fails();
    let text = fs::read_to_string(&log).expect("the log was written");
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["level"], "error");
    let message = last["msg"].as_str().expect("a text");
    if runtime().peer != Peer::Crun {
        assert_eq!(message, "container does not exist");
    }
    assert!(output.stderr.contains(message), "stderr says the same: {}", output.stderr);
    let time = last["time"].as_str().expect("a text");
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T', "{time}");
    // The same for an error of the child.
    let container = Container::new(Bundle::new().args(&["/no/such \"program\"\n"]));
    let words = ["--log", path, "--log-format", "json", "create", "--bundle"];
    container.invoke(&words).arg(container.bundle.dir()).arg(&container.id).run().fails();
    let text = fs::read_to_string(&log).expect("the log was written");
    for line in text.lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string() && line["msg"].is_string());
    }
    assert!(
        text.lines().last().expect("a line").contains("no such file or directory")
            || runtime().peer == Peer::Crun
    );
}

fn errors_are_logged_as_text() {
    let container = Container::new(Bundle::new());
    let log = container.bundle.dir().join("log.txt");
    failing(&container, &["--log", log.to_str().expect("text")]).fails();
    let text = fs::read_to_string(&log).expect("the log was written");
    peer_lacks!("crun", "its text has another form");
    let line = text.lines().last().expect("a line");
    assert!(line.starts_with("time=") && line.contains("level=error"), "{line}");
    assert!(line.contains("msg=\"container does not exist\""), "{line}");
}

fn the_log_is_appended_to() {
    let container = Container::new(Bundle::new());
    let log = container.bundle.dir().join("log.txt");
    for count in 1..3 {
        failing(&container, &["--log", log.to_str().expect("text")]).fails();
        let text = fs::read_to_string(&log).expect("the log was written");
        peer_lacks!("crun 1.8", "it begins the file anew");
        assert_eq!(text.lines().count(), count, "{text}");
    }
}

fn a_log_that_cannot_be_written_is_an_error() {
    let container = Container::new(Bundle::new());
    failing(&container, &["--log", "/no/such/directory/log"]).fails();
}

fn an_unknown_log_format_is_refused() {
    let container = Container::new(Bundle::new());
    failing(&container, &["--log-format", "xml"]).fails();
}

fn debug_says_more() {
    let container = Container::new(Bundle::new());
    let log = container.bundle.dir().join("log.json");
    let words = [
        "--debug",
        "--log",
        log.to_str().expect("text"),
        "--log-format",
        "json",
        "run",
        "--bundle",
    ];
    container.invoke(&words).arg(container.bundle.dir()).arg(&container.id).run().ok();
    let text = fs::read_to_string(&log).unwrap_or_default();
    peer_lacks!("crun", "it says nothing");
    assert!(text.contains("\"level\":\"debug\""), "{text}");
    for line in text.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

/// The runtime's own command, which no peer has.
fn explain(container: &Container, words: &[&str]) -> Invocation {
    peer_lacks!("runc", "explain is our own");
    peer_lacks!("crun", "explain is our own");
    container.invoke(&["explain", "--bundle"]).arg(container.bundle.dir()).args(words)
}

fn explain_says_what_create_would_do() {
    let bundle = Bundle::sleeper()
        .set("/process/user/uid", 7)
        .set("/linux/resources/memory", json!({"limit": 67_108_864}))
        .mount("/etc/issue", "bind", "/etc/hosts", &["bind", "ro"]);
    let container = Container::new(bundle);
    let text = explain(&container, &[]).run().ok().stdout;
    for words in ["pid: a new one", "/etc/issue is /etc/hosts", "user: 7:0", "67108864"] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    let explained = explain(&container, &["--format", "json"]).run().ok().json();
    container.assert_gone();
    container.create().ok();
    let list = explained["cgroup"]["writes"].as_array().expect("a list");
    assert!(!list.is_empty());
    for write in list {
        let (file, value) = (write["file"].as_str(), write["value"].as_str());
        let now = fs::read_to_string(file.expect("a path")).expect("what is written can be read");
        assert_eq!(Some(now.trim()), value, "{write}");
    }
    for directory in explained["cgroup"]["directories"].as_array().expect("a list") {
        let procs = format!("{}/cgroup.procs", directory["path"].as_str().expect("a path"));
        let procs = fs::read_to_string(procs).expect("it was made");
        assert_eq!(procs.trim(), container.pid().to_string(), "{directory}");
    }
}

fn explain_refuses_what_create_refuses() {
    for (pointer, value) in [
        ("/process/cwd", json!("relative")),
        ("/process/args", json!([])),
        ("/ociVersion", json!("9")),
        ("/linux/resources", json!({"unified": {"no.such.thing/x": "1"}})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NONE"})),
    ] {
        let container = Container::new(Bundle::sleeper().set(pointer, value));
        let explained = explain(&container, &[]).run().exits(1).fails();
        let created = container.create().fails();
        let reason = |output: &hull_integration::Output| {
            let line = output.complaints().concat();
            let (_, message) = line.split_once("msg=").expect("a log line");
            message.replace("hull-runtime create failed: ", "")
        };
        assert_eq!(reason(&explained), reason(&created), "{pointer}");
        container.assert_gone();
    }
}
