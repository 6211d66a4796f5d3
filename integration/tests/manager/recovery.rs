//! The manager killed, ended and started again: containers go on, nothing is forgotten.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hull_integration::engine::{
    Engine, Hull, SLEEPER, busybox_archive, reference, runtime_path, stock,
};
use hull_integration::{NotRun, not_run, note, tests, wait_until, write_program};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

tests![
    a_container_outlives_the_manager,
    an_exit_is_known_that_nobody_saw,
    a_run_is_known_that_was_over_before_its_start_was_noted,
    the_starts_of_a_manager_are_none_of_those_that_a_policy_counts,
    output_is_kept_while_nobody_listens,
    images_and_volumes_are_there_again,
    a_restart_policy_holds_across_the_manager,
    names_stay_taken,
    a_commit_that_is_cut_off_leaves_the_container_running,
    execs_go_on_and_are_known_to_the_next_manager,
    runtimes_are_read_again,
    clients_of_a_manager_that_dies_are_told_so,
    clients_of_a_manager_that_stops_are_told_so,
    a_refused_start_is_no_fault_of_the_managers,
    kills_at_any_time_lose_nothing,
];

const SOON: Duration = Duration::from_secs(20);

fn clients_of_a_manager_that_dies_are_told_so() {
    clients_are_told(|hull| {
        hull.crash();
        let ended = format!("the manager at unix://{} ended the connection", hull.socket());
        hull.restart();
        ended
    });
}

fn clients_of_a_manager_that_stops_are_told_so() {
    clients_are_told(|hull| {
        hull.stop_and_restart();
        "the manager is stopping".to_owned()
    });
}

/// `end` ends the manager and gives what its clients are to say.
fn clients_are_told(end: fn(&mut Hull) -> String) {
    if reference() {
        not_run(NotRun::PeerLacks("docker: it says unexpected EOF, or nothing".into()));
    }
    let mut hull = Hull::start();
    let none = ["--network", "none", "busybox", "sh", "-c"];
    let script = "while :; do echo on; sleep 0.1; done";
    hull.run(&[&["run", "--name", "over"], &none[..], &["exit 3"]].concat()).exits(3);
    hull.run(&[&["run", "-d", "--name", "one"], &none[..], &[script]].concat()).ok();
    let run = [&["run"], &none[..], &[script]].concat();
    let calls = [
        (&["logs", "-f", "one"][..], 1),
        (&["events", "--since", "1h"], 1),
        (&["attach", "one"], 1),
        (&["exec", "one", "sh", "-c", script], 1),
        (&["stats", "one"], 1),
        (&["wait", "over", "one"], 1),
        (&run, 125),
    ];
    let clients: Vec<_> = calls.iter().map(|(words, _)| hull.call(words).start()).collect();
    wait_until("all are in the middle of it", SOON, || {
        clients.iter().all(|client| !client.stdout().is_empty())
    });
    let ended = end(&mut hull);
    for (client, (words, code)) in clients.into_iter().zip(calls) {
        let said = client.wait().exits(code).stderr_says(&ended);
        assert_eq!(said.complaints().len(), 1, "{words:?}");
    }
}

fn a_refused_start_is_no_fault_of_the_managers() {
    if reference() {
        not_run(NotRun::PeerLacks("docker: it has a log of its own".into()));
    }
    let hull = Hull::start();
    hull.run(&["run", "--network", "none", "busybox", "/no/such/program"]).exits(127);
    hull.run(&["run", "--network", "none", "-w", "/etc/passwd", "busybox", "true"]).fails();
    let log = fs::read_to_string(hull.site().path("hulld.log")).expect("it is written");
    assert!(!log.contains(" WARN "), "{log}");
}

fn a_container_outlives_the_manager() {
    let mut engine = Engine::start();
    engine.sleeper("one", &[]);
    let pid = engine.inspect("one", "{{.State.Pid}}");
    engine.crash_and_restart();
    assert_eq!(engine.inspect("one", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    engine.run(&["exec", "one", "echo", "still"]).ok().says("still");
    engine.run(&["stop", "-t", "20", "one"]).ok();
    assert_eq!(engine.inspect("one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
}

fn an_exit_is_known_that_nobody_saw() {
    let mut engine = Engine::start();
    engine.detach("one", &[], "sleep 0.3; exit 9");
    engine.crash_and_restart();
    wait_until("the exit is known", SOON, || {
        engine.inspect("one", "{{.State.Status}} {{.State.ExitCode}}") == "exited 9"
    });
    engine.run(&["wait", "one"]).ok().says("9");
}

fn a_run_is_known_that_was_over_before_its_start_was_noted() {
    if reference() {
        not_run(NotRun::PeerLacks("docker: its runtime is another's".into()));
    }
    // A runtime that is done with a start long before it says so; also if the test fails it does.
    let place = tempfile::tempdir().expect("the temporary directory is writable");
    let (program, place) = (place.path().join("slow"), place.path());
    let script = format!(
        "#!/bin/sh\n{} \"$@\" || exit\nfor id; do :; done\ncase \" $* \" in *' start '*)\n\
         : > {place}/$id\nuntil [ -e {place}/go ] || [ ${{#n}} -gt 600 ]; do n=x$n; sleep 0.05; done;; esac\n",
        runtime_path(),
        place = place.display(),
    );
    write_program(&program, script);
    let runtimes = [format!("hull={}", runtime_path()), format!("slow={}", program.display())];
    let flags = ["--add-runtime", &runtimes[0], "--add-runtime", &runtimes[1]];
    let mut hull = Hull::start_empty(&flags);
    hull.run(&["import", busybox_archive(), "busybox"]).ok();
    let create = |name: &str, more: &[&str]| {
        let words = ["create", "--name", name, "--runtime", "slow", "--network", "none"];
        let script = ["busybox", "sh", "-c", "exit 5"];
        hull.run(&[&words[..], more, &script].concat()).ok().text().to_owned()
    };
    let ids = [create("one", &[]), create("two", &["--rm"])];
    let starts = ["one", "two"].map(|name| hull.call(&["start", name]).start());
    wait_until("both are started", SOON, || ids.iter().all(|id| place.join(id).exists()));
    hull.crash();
    for start in starts {
        start.wait().fails();
    }
    fs::write(place.join("go"), "").expect("it is writable");
    let bundles = ids.map(|id| hull.site().path(&format!("exec/containers/{id}/exit.json")));
    wait_until("both have ended", SOON, || bundles.iter().all(|end| Path::new(end).exists()));
    hull.restart();
    let seen = "{{.State.Status}} {{.State.ExitCode}} {{.State.StartedAt}}";
    let seen = hull.run(&["inspect", "--format", seen, "one"]).ok();
    assert!(seen.text().starts_with("exited 5 2"), "{}", seen.text());
    hull.run(&["ps", "-a", "--format", "{{.Names}}"]).ok().says("one");
}

fn the_starts_of_a_manager_are_none_of_those_that_a_policy_counts() {
    let Engine::Hull(mut hull) = Engine::start() else {
        not_run(NotRun::PeerLacks("docker: its record of an end is another's".into()));
    };
    let words = ["run", "-d", "--name", "one", "--restart", "on-failure:2", "--network", "none"];
    hull.run(&[&words[..], &["busybox", "sleep", "1000"]].concat()).ok();
    let inspect = |hull: &Hull, format: &str| {
        hull.run(&["inspect", "--format", format, "one"]).ok().text().to_owned()
    };
    for _ in 0..3 {
        let pid = inspect(&hull, "{{.State.Pid}}").parse().expect("it is a number");
        let end = format!("exec/containers/{}/exit.json", inspect(&hull, "{{.Id}}"));
        let end = hull.site().path(&end);
        hull.crash();
        signal::kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
        wait_until("it has ended", SOON, || Path::new(&end).exists());
        hull.restart();
        wait_until("it is started again", SOON, || {
            inspect(&hull, "{{.State.Status}}") == "running"
        });
        assert_eq!(inspect(&hull, "{{.RestartCount}}"), "0");
    }
}

fn output_is_kept_while_nobody_listens() {
    let mut engine = Engine::start();
    engine.detach(
        "one",
        &[],
        "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo $i; sleep 0.005; done; sleep 60",
    );
    engine.crash_and_restart();
    let lines = || engine.run(&["logs", "one"]).ok().lines().len();
    wait_until("all lines are there", SOON, || lines() == 200);
}

fn images_and_volumes_are_there_again() {
    let mut engine = Engine::start();
    engine.run(&["volume", "create", "data"]).ok();
    engine.run(&["tag", "busybox", "other:1"]).ok();
    let images = |engine: &Engine| {
        let listed = engine.run(&["images", "--format", "{{.Repository}} {{.Tag}} {{.ID}}"]).ok();
        listed.text().to_owned()
    };
    let before = images(&engine);
    engine.crash_and_restart();
    assert_eq!(images(&engine), before);
    engine.run(&["volume", "ls", "-q"]).ok().says("data");
    engine.run(&["run", "--rm", "--network", "none", "other:1", "true"]).ok();
    engine.run(&["volume", "rm", "data"]).ok();
}

fn a_restart_policy_holds_across_the_manager() {
    let mut engine = Engine::start();
    engine.sleeper("one", &["--restart", "always"]);
    engine.crash_and_restart();
    engine.run(&["exec", "one", "kill", "-TERM", "1"]).ok();
    wait_until("it is restarted", SOON, || engine.run(&["exec", "one", "true"]).code() == Some(0));
    engine.sleeper("stopped", &["--restart", "unless-stopped"]);
    engine.run(&["stop", "-t", "20", "stopped"]).ok();
    engine.crash_and_restart();
    assert_eq!(engine.inspect("stopped", "{{.State.Status}}"), "exited");
}

fn names_stay_taken() {
    let mut engine = Engine::start();
    engine.run(&["create", "--name", "one", "busybox", "true"]).ok();
    engine.crash_and_restart();
    engine
        .run(&["create", "--name", "one", "busybox", "true"])
        .fails()
        .stderr_says("already in use");
    engine.run(&["rename", "one", "two"]).ok();
    engine.crash_and_restart();
    assert_eq!(engine.inspect("two", "{{.Name}}"), "/two");
}

fn a_commit_that_is_cut_off_leaves_the_container_running() {
    let mut engine = Engine::start();
    if reference() {
        not_run(NotRun::PeerLacks("docker: it leaves the container paused".into()));
    }
    engine.sleeper("one", &[]);
    engine.sleeper("two", &[]);
    engine.run(&["exec", "one", "sh", "-c", "head -c 200000000 /dev/zero > /big"]).ok();
    let status = |engine: &Engine, name: &str| engine.inspect(name, "{{.State.Status}}");
    let mut commit = engine.call(&["commit", "one", "made"]).start();
    wait_until("it is paused", SOON, || status(&engine, "one") == "paused" || commit.ended());
    engine.run(&["pause", "two"]).ok();
    engine.crash_and_restart();
    commit.wait();
    assert_eq!(status(&engine, "one"), "running");
    assert_eq!(status(&engine, "two"), "paused", "nobody but its user sets it going");
    engine.run(&["exec", "one", "rm", "/big"]).ok();
    engine.run(&["commit", "one", "made"]).ok();
    assert_eq!(status(&engine, "one"), "running");
    engine.run(&["pause", "one"]).ok();
    engine.crash_and_restart();
    assert_eq!(status(&engine, "one"), "paused");
}

fn runtimes_are_read_again() {
    let Engine::Hull(hull) = Engine::start() else {
        not_run(NotRun::PeerLacks("docker: it is told of runtimes in another file".into()));
    };
    let run = |name: &str| {
        let words = ["run", "--rm", "--network", "none", "--runtime", name, "busybox", "true"];
        hull.run(&words)
    };
    run("another").exits(125).stderr_says("unknown or invalid runtime name: another");
    hull.reload(&["another"]);
    wait_until("the runtime is known", SOON, || run("another").code() == Some(0));
    hull.reload(&[]);
    wait_until("it is not any more", SOON, || run("another").code() == Some(125));
    run("hull").ok();
}

/// What became of an exec is an event: its code.
fn exec_codes(hull: &Hull) -> String {
    let words = ["events", "--since", "1h", "--until", "0s", "--filter", "event=exec_die"];
    let format = ["--format", "{{.Actor.Attributes.exitCode}}"];
    hull.run(&[&words[..], &format].concat()).ok().lines().join(" ")
}

fn execs_go_on_and_are_known_to_the_next_manager() {
    let mut hull = match Engine::start() {
        Engine::Hull(hull) => hull,
        // Debian's forgets them.
        Engine::Docker(_) => not_run(NotRun::PeerLacks("docker: execs outlive dockerd".into())),
    };
    let sleeper = ["run", "-d", "--name", "one", "--network", "none", "busybox", "sh", "-c"];
    hull.run(&[&sleeper[..], &[SLEEPER]].concat()).ok();
    let execs = |hull: &Hull| {
        hull.run(&["inspect", "--format", "{{json .ExecIDs}}", "one"]).ok().text().to_owned()
    };
    assert_eq!(execs(&hull), "null");
    for (file, code) in [("/a", 6), ("/b", 9)] {
        let script = format!("while [ ! -e {file} ]; do sleep 0.02; done; exit {code}");
        hull.run(&["exec", "-d", "one", "sh", "-c", &script]).ok();
    }
    let known = execs(&hull);
    assert_eq!(known.matches(',').count(), 1, "two: {known}");
    hull.crash_and_restart();
    assert_eq!(execs(&hull), known);

    // One ends while a manager is there, one while there is none.
    hull.run(&["exec", "one", "touch", "/a"]).ok();
    wait_until("the first ends", SOON, || exec_codes(&hull).split(' ').any(|code| code == "6"));
    assert!(!execs(&hull).contains(','), "one is left: {}", execs(&hull));
    let id = hull.run(&["inspect", "--format", "{{.Id}}", "one"]).ok().text().to_owned();
    let bundle = hull.site().path(&format!("exec/containers/{id}"));
    hull.run(&["exec", "-d", "one", "sh", "-c", "sleep 0.5; touch /b"]).ok();
    hull.crash();
    wait_until("the second ends", SOON, || {
        let names = fs::read_dir(&bundle).expect("the bundle is there").flatten();
        let ends = names.filter(|name| name.file_name().to_string_lossy().starts_with("exit@"));
        ends.count() >= 2
    });
    hull.restart();
    wait_until("its code is known", SOON, || exec_codes(&hull).split(' ').any(|code| code == "9"));
    wait_until("none is left", SOON, || execs(&hull) == "null");
}

/// Debian's docker-registry, until it is dropped.
struct Registry {
    child: Child,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// One that keeps its data in the site.
    fn start(hull: &Hull) -> Self {
        let config = format!(
            "version: 0.1\nlog: {{level: info, formatter: text}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n",
            hull.site().make("registry"),
        );
        let config = hull.site().write("registry.yml", &config);
        let mut child = Command::new(stock("docker-registry"))
            .args(["serve", &config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry starts (make deps)");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let address = loop {
            let line = lines.next().expect("docker-registry listens").expect("its log is text");
            if let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break format!("127.0.0.1:{port}");
            }
        };
        // Its log must go on being read, or it stands still.
        std::thread::spawn(move || for _ in lines.map_while(Result::ok) {});
        Self { child, address }
    }
}

/// What is killed in a round.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Run,
    RunAndRemove,
    Exec,
    Remove,
    Pull,
}

/// Each round kills the manager at another moment of one operation. What was acknowledged is
/// there, and what was not is there whole or not at all and can be done again.
fn kills_at_any_time_lose_nothing() {
    let Engine::Hull(mut hull) = Engine::start() else {
        not_run(NotRun::PeerLacks("docker: its own suite has to kill it".into()));
    };
    let said = std::env::var("HULL_KILLS").ok().and_then(|text| text.parse().ok());
    let rounds: u32 = said.unwrap_or(10);
    let registry = Registry::start(&hull);
    let pulled = format!("{}/busybox:1", registry.address);
    let run = |hull: &Hull, more: &[&str], name: &str, script: &str| {
        let words = ["--name", name, "--network", "none", "busybox", "sh", "-c", script];
        hull.call(&[&["run"], more, &words].concat())
    };
    run(&hull, &["-d"], "steady", SLEEPER).run().ok();
    // With a layer that takes as long as the other operations.
    hull.run(&["exec", "steady", "dd", "if=/dev/urandom", "of=/random", "bs=1M", "count=4"]).ok();
    hull.run(&["commit", "steady", &pulled]).ok();
    hull.run(&["push", &pulled]).ok();
    hull.run(&["rmi", &pulled]).ok();
    let inspect = |hull: &Hull, format: &str, name: &str| {
        hull.run(&["inspect", "--format", format, name]).ok().text().to_owned()
    };
    let steady = inspect(&hull, "{{.State.Pid}}", "steady");
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let works = [Work::Run, Work::RunAndRemove, Work::Exec, Work::Remove, Work::Pull];
        let work = works[round as usize % works.len()];
        // No beginning of an id, which has hexadecimal digits only.
        let name = format!("round{round}");
        if work == Work::Remove {
            run(&hull, &["-d"], &name, SLEEPER).run().ok();
        }
        let call = match work {
            Work::Run => run(&hull, &["-d"], &name, "exit 5"),
            Work::RunAndRemove => run(&hull, &["--rm"], &name, "exit 5"),
            Work::Exec => hull.call(&["exec", "steady", "sh", "-c", "exit 5"]),
            Work::Remove => hull.call(&["rm", "-f", &name]),
            Work::Pull => hull.call(&["pull", &pulled]),
        };
        let running = call.start();
        // Spread over the operation, and never the same in two runs of one test.
        let moment = round.wrapping_mul(2_654_435_761) % 60_000;
        std::thread::sleep(Duration::from_micros(moment.into()));
        hull.crash();
        let code = running.wait().code();
        let begun = Instant::now();
        hull.restart();
        slowest = slowest.max(begun.elapsed());
        let said = format!("round {round}: {work:?} killed after {moment} us, code {code:?}");
        note(&said);
        let names = hull.run(&["ps", "-a", "--format", "{{.Names}}"]).ok();
        let known = names.lines().contains(&&*name);
        match work {
            Work::Run => {
                assert!(known || code != Some(0), "{said}: it is forgotten");
                if code == Some(0) {
                    let state = || inspect(&hull, "{{.State.Status}} {{.State.ExitCode}}", &name);
                    wait_until("its exit code is known", SOON, || state() == "exited 5");
                }
            }
            Work::RunAndRemove => assert!(!known || code != Some(5), "{said}: it is there yet"),
            Work::Exec => {}
            Work::Remove => assert!(!known || code != Some(0), "{said}: it is there again"),
            Work::Pull => {
                if code != Some(0) {
                    hull.run(&["pull", &pulled]).ok();
                }
                hull.run(&["run", "--rm", "--network", "none", &pulled, "true"]).ok();
                hull.run(&["rmi", &pulled]).ok();
            }
        }
        // It may be about to remove itself.
        hull.run(&["rm", "-f", &name]);
        assert_eq!(
            inspect(&hull, "{{.State.Status}} {{.State.Pid}}", "steady"),
            format!("running {steady}")
        );
        hull.run(&["exec", "steady", "true"]).ok();
    }
    assert!(slowest < SOON, "a manager needed {slowest:?} to be back");
    wait_until("all others are gone", SOON, || {
        hull.run(&["ps", "-a", "--format", "{{.Names}}"]).ok().text() == "steady"
    });
    let check = hull.run(&["system", "check"]).ok();
    note(&format!("slowest start {slowest:?}; {}", check.transcript()));
}
