//! From create to rm, and everything that happens to a running container.

use std::time::{Duration, Instant};

use hull_integration::engine::{Engine, SLEEPER, reference};
use hull_integration::{NotRun, not_run, tests, wait_until};

tests![
    a_container_is_created_started_waited_for_and_removed,
    a_name_is_used_once,
    an_id_is_known_by_its_start,
    what_is_not_there_is_said_so,
    exit_codes_are_the_programs,
    a_program_that_cannot_run_is_told_apart,
    stop_sends_the_signal_and_then_kills,
    kill_sends_any_signal,
    who_has_killed_a_container_can_remove_it,
    restart_makes_a_new_process,
    a_paused_container_stands_still,
    a_running_container_is_not_removed_without_force,
    a_container_that_removes_itself_is_gone,
    policies_restart_what_ended,
    a_health_check_runs_in_the_container,
    exec_runs_in_the_container,
    exec_has_the_containers_further_groups,
    copies_keep_owners_and_a_slash_means_a_directory,
    top_shows_the_processes,
    statistics_are_the_containers,
    limits_are_changed_while_it_runs,
    rename_gives_another_name,
    wait_answers_the_exit_code,
    logs_are_kept_and_followed,
    events_tell_what_happened,
    many_containers_live_at_once,
    prune_removes_what_does_not_run,
    layers_of_a_removed_image_go_with_its_last_container,
];

const SOON: Duration = Duration::from_secs(15);

fn a_container_is_created_started_waited_for_and_removed() {
    let engine = Engine::start();
    let script = "echo started; exit 3";
    engine
        .run(&["create", "--name", "one", "--network", "none", "busybox", "sh", "-c", script])
        .ok();
    assert_eq!(engine.inspect("one", "{{.State.Status}}"), "created");
    engine.run(&["start", "one"]).ok().says("one");
    engine.run(&["wait", "one"]).ok().says("3");
    engine.run(&["logs", "one"]).ok().says("started");
    engine.run(&["start", "--attach", "one"]).exits(3).says("started");
    engine.run(&["ps", "--quiet"]).ok().says("");
    engine.run(&["rm", "one"]).ok().says("one");
    engine.run(&["ps", "--all", "--quiet"]).ok().says("");
}

fn a_name_is_used_once() {
    let engine = Engine::start();
    engine.run(&["create", "--name", "one", "busybox", "true"]).ok();
    let refusal = engine.run(&["create", "--name", "one", "busybox", "true"]);
    refusal.fails().stderr_says("The container name \"/one\" is already in use by container");
    engine
        .run(&["create", "--name", "a/b", "busybox", "true"])
        .fails()
        .stderr_says("only [a-zA-Z0-9]");
    assert_eq!(engine.run(&["ps", "-aq"]).ok().lines().len(), 1);
}

fn an_id_is_known_by_its_start() {
    let engine = Engine::start();
    let id = engine.run(&["create", "busybox", "true"]).ok().text().to_owned();
    assert_eq!(id.len(), 64);
    for start in [&id[..], &id[..12], &id[..3]] {
        assert_eq!(engine.inspect(start, "{{.Id}}"), id);
    }
    let name = engine.inspect(&id, "{{.Name}}");
    assert!(name.starts_with('/') && name.len() > 3, "a name was chosen: {name}");
    assert_eq!(engine.inspect(&name[1..], "{{.Id}}"), id);
}

fn what_is_not_there_is_said_so() {
    let engine = Engine::start();
    for words in [
        &["start", "no"][..],
        &["stop", "no"],
        &["rm", "no"],
        &["logs", "no"],
        &["exec", "no", "true"],
        &["kill", "no"],
        &["pause", "no"],
        &["wait", "no"],
        &["rename", "no", "other"],
    ] {
        engine.run(words).exits(1).stderr_says("No such container: no");
    }
    engine.run(&["inspect", "no"]).exits(1).stderr_says("No such object: no");
    engine.run(&["rmi", "no"]).exits(1).stderr_says("No such image: no");
}

fn exit_codes_are_the_programs() {
    let engine = Engine::start();
    for code in [0, 1, 7, 125, 126, 127, 128, 255] {
        engine.shell(&[], &format!("exit {code}")).exits(code);
    }
    engine.shell(&["--init"], "kill -TERM $$").exits(143);
    engine.shell(&["--init"], "kill -KILL $$").exits(137);
}

fn a_program_that_cannot_run_is_told_apart() {
    let engine = Engine::start();
    let run = |words: &[&str]| {
        engine.run(&[&["run", "--rm", "--network", "none", "busybox"], words].concat())
    };
    run(&["nothing"]).exits(127).stderr_says("executable file not found in $PATH");
    // Docker needs a runtime's very words for this one.
    if !reference() {
        run(&["/etc"]).exits(126).stderr_says("is a directory");
    }
    run(&["/etc/passwd"]).exits(126).stderr_says("permission denied");
    engine.run(&["run", "--no-such-option", "busybox"]).exits(125);
    engine.run(&["ps", "-aq"]).ok().says("");
}

fn stop_sends_the_signal_and_then_kills() {
    let engine = Engine::start();
    engine.sleeper("polite", &[]);
    engine.run(&["stop", "--time", "20", "polite"]).ok().says("polite");
    assert_eq!(engine.inspect("polite", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    engine.detach("deaf", &[], "trap '' TERM; while :; do sleep 0.05; done");
    let begun = Instant::now();
    engine.run(&["stop", "--time", "1", "deaf"]).ok();
    assert!(begun.elapsed() >= Duration::from_millis(900), "it had its second");
    assert_eq!(engine.inspect("deaf", "{{.State.ExitCode}}"), "137");
    engine.detach(
        "other",
        &["--stop-signal", "USR2"],
        "trap 'exit 9' USR2; while :; do sleep 0.05; done",
    );
    engine.run(&["stop", "--time", "20", "other"]).ok();
    assert_eq!(engine.inspect("other", "{{.State.ExitCode}}"), "9");
    // A second stop is no error.
    engine.run(&["stop", "other"]).ok();
}

fn kill_sends_any_signal() {
    let engine = Engine::start();
    engine.sleeper("one", &[]);
    engine.run(&["kill", "--signal", "USR1", "one"]).ok();
    wait_until("the program hears USR1", SOON, || engine.run(&["logs", "one"]).text() == "usr1");
    engine.run(&["kill", "--signal", "NONE", "one"]).exits(1).stderr_says("nvalid signal");
    engine.run(&["kill", "one"]).ok();
    engine.run(&["wait", "one"]).ok().says("137");
    engine.run(&["kill", "one"]).exits(1).stderr_says("is not running");
}

fn who_has_killed_a_container_can_remove_it() {
    let engine = Engine::start();
    for _ in 0..10 {
        engine.sleeper("one", &[]);
        engine.run(&["kill", "one"]).ok();
        engine.run(&["rm", "one"]).ok();
    }
}

fn restart_makes_a_new_process() {
    let engine = Engine::start();
    engine.sleeper("one", &[]);
    let first = engine.inspect("one", "{{.State.Pid}}");
    engine.run(&["restart", "--time", "20", "one"]).ok();
    assert_ne!(engine.inspect("one", "{{.State.Pid}}"), first);
    assert_eq!(engine.inspect("one", "{{.State.Status}}"), "running");
}

fn a_paused_container_stands_still() {
    let engine = Engine::start();
    let script = "while :; do echo tick; sleep 0.02; done";
    engine.detach("one", &[], script);
    let ticks = || engine.run(&["logs", "one"]).ok().lines().len();
    wait_until("the container ticks", SOON, || ticks() > 5);
    engine.run(&["pause", "one"]).ok();
    assert_eq!(engine.inspect("one", "{{.State.Status}} {{.State.Paused}}"), "paused true");
    let before = ticks();
    engine.run(&["exec", "one", "true"]).exits(1).stderr_says("is paused");
    engine.run(&["stats", "--no-stream", "one"]).ok();
    assert_eq!(ticks(), before, "it ticks though it is paused");
    engine.run(&["unpause", "one"]).ok();
    wait_until("the container ticks again", SOON, || ticks() > before);
    engine.run(&["unpause", "one"]).exits(1).stderr_says("is not paused");
    engine.run(&["pause", "one"]).ok();
    engine.run(&["rm", "--force", "one"]).ok();
}

fn a_running_container_is_not_removed_without_force() {
    let engine = Engine::start();
    engine.sleeper("one", &[]);
    engine.run(&["rm", "one"]).exits(1).stderr_says("force remove");
    engine.run(&["rm", "--force", "one"]).ok();
    engine.run(&["ps", "-aq"]).ok().says("");
}

fn a_container_that_removes_itself_is_gone() {
    let engine = Engine::start();
    engine
        .run(&["run", "-d", "--rm", "--name", "one", "--network", "none", "busybox", "true"])
        .ok();
    wait_until("it is gone", SOON, || engine.run(&["ps", "-aq"]).ok().text().is_empty());
    engine
        .run(&["run", "--rm", "--restart", "always", "busybox"])
        .exits(125)
        .stderr_says("--restart");
}

fn policies_restart_what_ended() {
    let engine = Engine::start();
    engine.detach("one", &["--restart", "on-failure:2"], "echo run; exit 1");
    let settled = || engine.inspect("one", "{{.State.Status}} {{.RestartCount}}") == "exited 2";
    wait_until("two restarts", SOON, settled);
    engine.run(&["logs", "one"]).ok().says("run\nrun\nrun");
    engine.detach("fine", &["--restart", "on-failure"], "exit 0");
    wait_until("it ended", SOON, || engine.inspect("fine", "{{.State.Status}}") == "exited");
    engine.detach("always", &["--restart", "always"], SLEEPER);
    engine.run(&["stop", "--time", "20", "always"]).ok();
    assert_eq!(engine.inspect("always", "{{.State.Status}}"), "exited");
    engine.run(&["start", "always"]).ok();
    engine.run(&["exec", "always", "kill", "-TERM", "1"]).ok();
    let restarted =
        || engine.inspect("always", "{{.State.Status}} {{.RestartCount}}") == "running 1";
    wait_until("it is restarted", SOON, restarted);
    engine.run(&["update", "--restart", "no", "always"]).ok();
    engine.run(&["kill", "always"]).ok();
    wait_until("it stays", SOON, || engine.inspect("always", "{{.State.Status}}") == "exited");
}

fn a_health_check_runs_in_the_container() {
    let engine = Engine::start();
    engine.sleeper(
        "one",
        &["--health-cmd", "test -e /well", "--health-interval", "100ms", "--health-retries", "2"],
    );
    let health = || engine.inspect("one", "{{.State.Health.Status}}");
    wait_until("it is unhealthy", SOON, || health() == "unhealthy");
    engine.run(&["exec", "one", "touch", "/well"]).ok();
    wait_until("it is healthy", SOON, || health() == "healthy");
    engine.run(&["ps", "--filter", "health=healthy", "--format", "{{.Names}}"]).ok().says("one");
}

fn exec_runs_in_the_container() {
    let engine = Engine::start();
    engine.sleeper("one", &["--env", "A=1"]);
    engine.run(&["exec", "one", "sh", "-c", "echo $A; echo err >&2; exit 5"]).exits(5).says("1");
    engine.run(&["exec", "--env", "B=2", "one", "sh", "-c", "echo $A$B"]).ok().says("12");
    engine.run(&["exec", "--workdir", "/tmp", "one", "pwd"]).ok().says("/tmp");
    engine.run(&["exec", "--user", "user", "one", "id", "-u"]).ok().says("1000");
    engine.run(&["exec", "--user", "7:8", "one", "sh", "-c", "id -u; id -g"]).ok().says("7\n8");
    let missing = engine.run(&["exec", "one", "nothing"]);
    let stranger = engine.run(&["exec", "--user", "nobody-there", "one", "true"]);
    if reference() {
        // Before 23, docker writes why to the program's output.
        missing.exits(126);
        stranger.exits(126);
    } else {
        missing.exits(127).stderr_says("executable file not found");
        stranger.fails().stderr_says("unable to find user");
    }
    engine.run(&["exec", "--detach", "one", "touch", "/made"]).ok().says("");
    wait_until("a detached exec works", SOON, || {
        engine.run(&["exec", "one", "test", "-e", "/made"]).code() == Some(0)
    });
    engine.call(&["exec", "-i", "one", "cat"]).stdin("typed").run().ok().says("typed");
    engine.run(&["stop", "-t", "20", "one"]).ok();
    engine.run(&["exec", "one", "true"]).exits(1).stderr_says("is not running");
}

fn exec_has_the_containers_further_groups() {
    let engine = Engine::start();
    engine.sleeper("one", &["--group-add", "77", "--group-add", "extra"]);
    engine.run(&["exec", "one", "id", "-G"]).ok().says("0 77 2000");
    engine.run(&["exec", "--user", "0", "one", "id", "-G"]).ok().says("0 77 2000");
    engine.run(&["exec", "--user", "7:8", "one", "id", "-G"]).ok().says("8 77 2000");
}

fn copies_keep_owners_and_a_slash_means_a_directory() {
    let engine = Engine::start();
    engine.sleeper("one", &[]);
    let site = engine.site();
    let file = site.write("file", "text\n");
    std::os::unix::fs::chown(&file, Some(1234), Some(5678)).expect("the suite is root");
    engine.run(&["cp", &file, "one:/tmp/"]).ok();
    engine.run(&["cp", "--archive", &file, "one:/tmp/archived"]).ok();
    engine
        .run(&["exec", "one", "stat", "-c", "%u:%g", "/tmp/file", "/tmp/archived"])
        .ok()
        .says("1234:5678\n1234:5678");
    let passwd = engine.run(&["exec", "one", "cat", "/etc/passwd"]).ok().text().to_owned();
    engine.run(&["cp", &file, "one:/etc/passwd/"]).exits(1).stderr_says("no such directory");
    engine.run(&["cp", &file, "one:/etc/passwd/."]).exits(1);
    assert_eq!(engine.run(&["exec", "one", "cat", "/etc/passwd"]).ok().text(), passwd);
    let target = site.path("target");
    for source in ["one:/etc/passwd/", "one:/etc/passwd/."] {
        engine.run(&["cp", source, &target]).exits(1).stderr_says("not a directory");
    }
    assert!(!std::path::Path::new(&target).exists());
    engine.run(&["exec", "one", "ln", "-s", "/etc", "/link"]).ok();
    engine.run(&["cp", "one:/link/", &target]).ok();
    assert!(std::path::Path::new(&target).join("passwd").exists());
}

fn top_shows_the_processes() {
    let engine = Engine::start();
    engine.sleeper("one", &[]);
    let top = engine.run(&["top", "one", "-o", "pid,comm"]).ok();
    let first = format!("{} sh", engine.inspect("one", "{{.State.Pid}}"));
    let lines = top.lines();
    let mut processes =
        lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    assert!(processes.any(|process| process == first), "{}", top.transcript());
}

fn statistics_are_the_containers() {
    let engine = Engine::start();
    engine.sleeper("one", &["--memory", "64m"]);
    let stats = engine.run(&["stats", "--no-stream", "--format", "{{json .}}", "one"]).ok().json();
    assert_eq!(stats["Name"], "one");
    assert!(stats["MemUsage"].as_str().unwrap_or_default().ends_with("/ 64MiB"), "{stats}");
    let pids: u32 = stats["PIDs"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    assert!((1..=2).contains(&pids), "{stats}");
}

fn limits_are_changed_while_it_runs() {
    let engine = Engine::start();
    engine.sleeper("one", &["--memory", "64m"]);
    engine.run(&["update", "--memory", "32m", "--memory-swap", "64m", "one"]).ok();
    assert_eq!(engine.inspect("one", "{{.HostConfig.Memory}}"), (32 << 20).to_string());
    let stats = engine.run(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "one"]).ok();
    assert!(stats.text().ends_with("/ 32MiB"), "{}", stats.transcript());
}

fn rename_gives_another_name() {
    let engine = Engine::start();
    engine.sleeper("one", &[]);
    engine.run(&["create", "--name", "two", "busybox", "true"]).ok();
    engine.run(&["rename", "one", "two"]).exits(1).stderr_says("already in use");
    engine.run(&["rename", "one", "three"]).ok();
    assert_eq!(engine.inspect("three", "{{.Name}}"), "/three");
    engine.run(&["exec", "one", "true"]).exits(1).stderr_says("No such container: one");
    engine.run(&["exec", "three", "true"]).ok();
}

fn wait_answers_the_exit_code() {
    let engine = Engine::start();
    engine.detach("one", &[], "sleep 0.5; exit 4");
    engine.run(&["wait", "one"]).ok().says("4");
    engine.run(&["wait", "one"]).ok().says("4");
    // Each end counts, whatever follows it.
    engine.detach("two", &["--restart", "always"], "sleep 1; exit 3");
    engine.run(&["wait", "two"]).ok().says("3");
}

fn logs_are_kept_and_followed() {
    let engine = Engine::start();
    engine.detach(
        "one",
        &[],
        "for i in 1 2 3 4 5; do echo line $i; echo err $i >&2; done; sleep 0.3; echo last",
    );
    let followed = engine.run(&["logs", "--follow", "one"]).ok();
    assert_eq!(followed.lines().last().copied(), Some("last"), "{}", followed.transcript());
    engine.run(&["logs", "--tail", "2", "one"]).ok();
    let lines: Vec<String> =
        engine.run(&["logs", "one"]).ok().lines().iter().map(|line| (*line).to_owned()).collect();
    assert_eq!(lines, ["line 1", "line 2", "line 3", "line 4", "line 5", "last"]);
    engine.run(&["logs", "--tail", "1", "one"]).ok().says("last");
    engine.run(&["logs", "--tail", "0", "one"]).ok().says("");
    let stamped = engine.run(&["logs", "--timestamps", "--tail", "1", "one"]).ok();
    let (time, text) = stamped.text().split_once(' ').expect("a time and a line");
    assert!(time.ends_with('Z') && time.len() >= 20 && text == "last", "{}", stamped.transcript());
    engine.run(&["logs", "--since", "1h", "one"]).ok();
    engine.run(&["logs", "--until", "2001-01-01T00:00:00Z", "one"]).ok().says("");
}

fn events_tell_what_happened() {
    let engine = Engine::start();
    engine.shell(&["--name", "one"], "exit 3").exits(3);
    let words = "events --since 1h --until 0s --filter type=container --format {{.Action}}";
    let words: Vec<&str> = words.split(' ').collect();
    // Docker's "now" is the beginning of this second.
    wait_until("the events of a life", SOON, || {
        let events = engine.run(&words).ok();
        let actions = events.lines();
        ["create", "start", "die", "destroy"].iter().all(|action| actions.contains(action))
    });
    let die = engine.run(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "event=die",
        "--format",
        "{{.Actor.Attributes.exitCode}}",
    ]);
    die.ok().says("3");
}

fn many_containers_live_at_once() {
    let engine = Engine::start();
    let names: Vec<String> = (0..16).map(|number| format!("c{number}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            let call = engine.call(&[
                "run",
                "-d",
                "--network",
                "none",
                "--name",
                name,
                "busybox",
                "sh",
                "-c",
                SLEEPER,
            ]);
            scope.spawn(move || call.run().ok());
        }
    });
    assert_eq!(engine.run(&["ps", "-q"]).ok().lines().len(), names.len());
    let words: Vec<&str> =
        ["rm", "--force"].into_iter().chain(names.iter().map(String::as_str)).collect();
    engine.run(&words).ok();
    engine.run(&["ps", "-aq"]).ok().says("");
}

fn prune_removes_what_does_not_run() {
    let engine = Engine::start();
    engine.sleeper("one", &[]);
    engine.run(&["create", "--name", "two", "busybox", "true"]).ok();
    engine.run(&["container", "prune", "--force"]).ok();
    engine.run(&["ps", "-a", "--format", "{{.Names}}"]).ok().says("one");
}

fn layers_of_a_removed_image_go_with_its_last_container() {
    let Engine::Hull(hull) = Engine::start() else {
        not_run(NotRun::PeerLacks("docker: it does not tell of its layers".into()));
    };
    hull.run(&["create", "--name", "one", "busybox", "true"]).ok();
    hull.run(&["rmi", "-f", "busybox"]).ok();
    let left = || hull.run(&["system", "check"]).ok().text().to_owned();
    assert!(left().contains(" 0 images, 2 snapshots"), "{}", left());
    hull.run(&["rm", "one"]).ok();
    wait_until("nothing is left", SOON, || left().starts_with("0 blobs, 0 images, 0 snapshots"));
}
