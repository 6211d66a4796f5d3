//! The manager killed, ended and started again: containers go on, nothing is forgotten.

use std::time::Duration;

use hull_integration::engine::Engine;
use hull_integration::{NotRun, not_run, require, tests, wait_until};

tests![
    a_container_outlives_the_manager,
    an_exit_is_known_that_nobody_saw,
    output_is_kept_while_nobody_listens,
    images_and_volumes_are_there_again,
    a_restart_policy_holds_across_the_manager,
    names_stay_taken,
    kills_at_any_time_lose_nothing,
];

const SOON: Duration = Duration::from_secs(20);

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

/// Each round kills the manager at another moment of one operation. What was acknowledged is
/// there, and what was not is there whole or not at all and can be removed.
fn kills_at_any_time_lose_nothing() {
    // Not in every run: a kill while a shim starts can leave that shim, idle, to nobody.
    require!(std::env::var_os("HULL_KILLS").is_some(), "HULL_KILLS says how often to kill");
    let Engine::Hull(mut hull) = Engine::start() else {
        not_run(NotRun::PeerLacks("docker: its own suite has to kill it".into()));
    };
    let rounds: u32 =
        std::env::var("HULL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    for round in 0..rounds {
        let name = format!("c{round}");
        let running = hull
            .call(&[
                "run",
                "-d",
                "--name",
                &name,
                "--network",
                "none",
                "busybox",
                "sh",
                "-c",
                "exit 5",
            ])
            .start();
        std::thread::sleep(Duration::from_millis(u64::from(round * 3 % 37)));
        hull.crash();
        let acknowledged = running.wait().code() == Some(0);
        hull.restart();
        let known =
            hull.run(&["ps", "-a", "--format", "{{.Names}}"]).ok().lines().contains(&&*name);
        assert!(known || !acknowledged, "round {round}: an acknowledged container is forgotten");
        if acknowledged {
            let state = || {
                hull.run(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", &name])
                    .ok()
                    .text()
                    .to_owned()
            };
            wait_until("its exit code is known", SOON, || state() == "exited 5");
        }
        if known {
            hull.run(&["rm", "-f", &name]).ok();
        }
        hull.run(&["run", "--rm", "--network", "none", "busybox", "true"]).ok();
    }
}
