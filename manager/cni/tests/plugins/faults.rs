//! Plugins that misbehave, and what is left of them: nothing.

use std::time::{Duration, Instant};

use hull_manager_cni::{Attachment, Network};
use hull_manager_core::ErrorKind;
use serde_json::json;

use crate::lab::{Lab, eventually, lab, network};

/// Logs what it is asked to, then says that it has done it.
const LOG: &str = r#"
echo "$CNI_COMMAND $(basename "$0")" >> LOG
case $CNI_COMMAND in
VERSION) echo '{"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}' ;;
ADD) FAULT
    echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}], "by": "'$(basename "$0")'"}' ;;
*) cat > "LOG.$CNI_COMMAND.$(basename "$0")"; LATER ;;
esac"#;

/// A plugin with a fault in ADD, and one in everything later.
fn plugin(lab: &Lab, name: &str, fault: &str, later: &str) {
    let log = lab.path("log");
    let script = LOG.replace("LOG", log.to_str().unwrap());
    lab.plugin(name, &script.replace("FAULT", fault).replace("LATER", later));
}

fn chain(kinds: &[&str], version: &str) -> Network {
    let plugins: Vec<_> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    network(json!({"name": "n", "cniVersion": version, "plugins": plugins}))
}

fn attachment() -> Attachment {
    Attachment {
        container_id: "a".into(),
        netns: "/proc/self/ns/net".into(),
        interface: "eth0".into(),
        ..Attachment::default()
    }
}

fn log(lab: &Lab) -> String {
    let text = lab.read("log");
    let asked = text.lines().filter(|line| !line.starts_with("VERSION"));
    asked.collect::<Vec<_>>().join(", ")
}

/// Waits until a plugin is at work.
async fn begun(lab: &Lab) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while log(lab).is_empty() {
        assert!(Instant::now() < deadline, "no plugin was run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_failure_in_the_middle_is_rolled_back_from_its_end() {
    lab(|lab| {
        plugin(lab, "p1", "", "");
        plugin(lab, "p2", r#"echo '{"code": 11, "msg": "no more"}'; exit 1"#, "");
        plugin(lab, "p3", "", "");
        let error = lab.add(&chain(&["p1", "p2", "p3"], "1.0.0"), attachment()).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Unavailable, "plugin p2: no more")
        );
        assert_eq!(log(lab), "ADD p1, ADD p2, DEL p2, DEL p1");
        let request = lab.read("log.DEL.p1");
        assert!(request.contains(r#""by":"p1""#), "the previous result: {request}");
        assert_eq!(lab.records(), 0);
    });
}

#[test]
fn what_can_not_be_rolled_back_stays_recorded_until_it_can() {
    lab(|lab| {
        let log_well = format!("{}.well", lab.path("log").display());
        plugin(lab, "p1", "", &format!("[ -e {log_well} ] || {{ echo broken >&2; exit 7; }}"));
        plugin(lab, "p2", "kill -SEGV $$", "");
        let network = chain(&["p1", "p2"], "1.0.0");
        let error = lab.add(&network, attachment()).unwrap_err().to_string();
        assert_eq!(error, "plugin p2 was killed by signal 11");
        let recorded = lab.cni().attachments().unwrap();
        assert_eq!((recorded.len(), recorded[0].addition.as_ref()), (1, None));
        assert_eq!(lab.check(&network, "a").unwrap_err().kind(), ErrorKind::NotFound);
        let error = lab.del(&network, "a").unwrap_err().to_string();
        assert_eq!(error, "plugin p1 failed with exit code 7: broken");
        std::fs::write(log_well, "").unwrap();
        lab.del(&network, "a").unwrap();
        assert_eq!(lab.records(), 0);
    });
}

#[test]
fn one_that_fails_to_delete_does_not_keep_the_others_from_it() {
    lab(|lab| {
        plugin(lab, "p1", "", "");
        plugin(lab, "p2", "", "exit 1");
        plugin(lab, "p3", "", "exit 2");
        let network = chain(&["p1", "p2", "p3"], "1.0.0");
        lab.add(&network, attachment()).unwrap();
        let error = lab.del(&network, "a").unwrap_err().to_string();
        assert_eq!(error, "plugin p3 failed with exit code 2; plugin p2 failed with exit code 1");
        assert_eq!(log(lab), "ADD p1, ADD p2, ADD p3, DEL p3, DEL p2, DEL p1");
        assert!(lab.cni().attachments().unwrap()[0].addition.is_some());
    });
}

#[test]
fn a_hung_plugin_is_killed_with_what_it_started() {
    lab(|lab| {
        let mut lab_settings = lab.settings.clone();
        // Longer than a shell needs to begin on a busy machine.
        lab_settings.time_limit = Duration::from_secs(5);
        let cni = hull_manager_cni::Cni::open(lab_settings).unwrap();
        let child = lab.path("child");
        plugin(lab, "p1", &format!("sleep 600 & echo $! > {}; wait", child.display()), "");
        let began = Instant::now();
        let error = lab.wait(cni.add(&chain(&["p1"], "1.0.0"), attachment())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(error.to_string(), "plugin p1 took longer than 5 s and was killed");
        assert!(began.elapsed() < Duration::from_secs(60));
        let process = format!("/proc/{}/cmdline", lab.read("child").trim());
        eventually("its child ends", || {
            std::fs::read(&process).map_or(true, |line| !line.starts_with(b"sleep"))
        });
        assert_eq!(log(lab), "ADD p1, DEL p1");
        assert_eq!(lab.records(), 0);
    });
}

#[test]
fn a_process_that_is_left_behind_holds_nobody_up() {
    lab(|lab| {
        let child = lab.path("child");
        plugin(lab, "p1", &format!("setsid sleep 600 & echo $! > {}", child.display()), "");
        let began = Instant::now();
        lab.add(&chain(&["p1"], "1.0.0"), attachment()).unwrap();
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        let pid: i32 = lab.read("child").trim().parse().unwrap();
        hull_runtime_sys::process::kill(pid, libc::SIGKILL).unwrap();
    });
}

#[test]
fn garbage_is_named_and_rolled_back() {
    lab(|lab| {
        for (fault, sentence) in [
            ("echo hello; exit 0", r#"plugin p1 answered with no result: "hello\n""#),
            ("exit 0", r#"plugin p1 answered with no result: """#),
            (
                "echo '{\"ips\": [{\"address\": \"x\"}]}'; exit 0",
                r#"plugin p1: "x" is no address with a prefix"#,
            ),
            ("head -c 2000000 /dev/zero; exit 0", "plugin p1: an answer of over 1048576 bytes"),
            ("exec sleep 0 < /dev/null > /dev/null", r#"plugin p1 answered with no result: """#),
        ] {
            plugin(lab, "p1", fault, "");
            let error = lab.add(&chain(&["p1"], "1.0.0"), attachment()).unwrap_err().to_string();
            assert_eq!(error, sentence);
            assert!(log(lab).ends_with("ADD p1, DEL p1"), "{fault}: {}", log(lab));
            assert_eq!(lab.records(), 0);
        }
    });
}

#[test]
fn a_plugin_sees_nothing_of_our_environment() {
    lab(|lab| {
        let seen = lab.path("seen");
        plugin(lab, "p1", &format!("env | sort > {}; pwd >> {0}", seen.display()), "");
        lab.add(&chain(&["p1"], "1.0.0"), attachment()).unwrap();
        let text = lab.read("seen");
        let keys: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
        assert_eq!(
            keys,
            [
                "CNI_ARGS",
                "CNI_COMMAND",
                "CNI_CONTAINERID",
                "CNI_IFNAME",
                "CNI_NETNS",
                "CNI_PATH",
                "PATH",
                "PWD",
                "/"
            ]
        );
        assert!(std::env::vars_os().count() > 2, "there was something to see");
    });
}

#[test]
fn from_1_1_on_plugins_are_asked_for_their_status_and_collect() {
    lab(|lab| {
        plugin(lab, "p1", "", "");
        plugin(
            lab,
            "p2",
            "",
            r#"[ $CNI_COMMAND = DEL ] || { echo '{"code": 50, "msg": "full"}'; exit 1; }"#,
        );
        let network = chain(&["p1", "p2"], "1.1.0");
        let status = lab.wait(lab.cni().status(&network)).unwrap_err();
        assert_eq!(
            (status.kind(), status.to_string().as_str()),
            (ErrorKind::Unavailable, "plugin p2: full")
        );
        lab.add(&network, attachment()).unwrap();
        let gone = Attachment { container_id: "gone".into(), ..attachment() };
        lab.add(&network, gone).unwrap();
        std::fs::remove_file(lab.path("log")).unwrap();
        let valid = vec![("a".to_owned(), "eth0".to_owned())];
        let error = lab.wait(lab.cni().gc(&network, || Ok(valid))).unwrap_err().to_string();
        assert_eq!(error, "plugin p2: full");
        assert_eq!(log(lab), "DEL p2, DEL p1, GC p1, GC p2");
        let request = lab.read("log.GC.p1");
        assert!(
            request
                .contains(r#""cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]"#)
        );
        assert_eq!(lab.records(), 1);
    });
}

#[test]
fn a_network_can_forbid_check_and_collection() {
    lab(|lab| {
        plugin(lab, "p1", "", "exit 1");
        let quiet = network(json!({"name": "n", "cniVersion": "1.1.0", "disableCheck": true,
            "disableGC": true, "plugins": [{"type": "p1"}]}));
        lab.add(&quiet, attachment()).unwrap();
        lab.check(&quiet, "a").unwrap();
        lab.wait(lab.cni().gc(&quiet, || Ok(Vec::new()))).unwrap();
        assert_eq!(log(lab), "ADD p1");
    });
}

#[test]
fn an_operation_goes_on_when_its_caller_goes_away() {
    lab(|lab| {
        let ready = lab.path("ready");
        plugin(lab, "p1", &format!("while [ ! -e {} ]; do sleep 0.05; done", ready.display()), "");
        let (network, cni) = (chain(&["p1"], "1.0.0"), lab.cni());
        lab.wait(async {
            let add = cni.add(&network, attachment());
            assert!(tokio::time::timeout(Duration::from_millis(300), add).await.is_err());
            std::fs::write(&ready, "").unwrap();
            let deadline = Instant::now() + Duration::from_secs(10);
            while cni.attachments().unwrap().iter().all(|one| one.addition.is_none()) {
                assert!(Instant::now() < deadline, "the ADD did not go on");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        lab.check(&network, "a").unwrap();
    });
}

#[test]
fn who_is_killed_in_an_add_finds_it_afterwards() {
    lab(|lab| {
        plugin(lab, "p1", "kill -STOP $$", "");
        let network = chain(&["p1"], "1.0.0");
        // Another runtime, which ends in the middle.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cni = lab.cni();
            tokio::select! {
                answer = cni.add(&network, attachment()) => panic!("it has ended: {answer:?}"),
                () = begun(lab) => {}
            }
        });
        drop(runtime);
        let recorded = lab.cni().attachments().unwrap();
        assert_eq!((recorded.len(), recorded[0].addition.as_ref()), (1, None));
        assert_eq!(recorded[0].attachment.container_id, "a");
        lab.del(&network, "a").unwrap();
        assert_eq!(log(lab), "ADD p1, DEL p1");
        assert_eq!(lab.records(), 0);
    });
}

#[test]
fn no_plugin_outlives_its_manager() {
    lab(|lab| {
        plugin(lab, "p1", &format!("echo $$ > {}; exec sleep 1000", lab.path("pid").display()), "");
        let (network, cni) = (chain(&["p1"], "1.0.0"), lab.cni());
        let pid = std::thread::scope(|scope| {
            let manager = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                // Killed, it ends none in good order.
                let runtime = std::mem::ManuallyDrop::new(runtime.unwrap());
                runtime.block_on(async {
                    tokio::select! {
                        answer = cni.add(&network, attachment()) => panic!("ended: {answer:?}"),
                        pid = number(lab) => pid
                    }
                })
            });
            manager.join().unwrap()
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Dead it is, though its process, which is ours, does not ask.
        while !state().is_empty() && !state().contains(") Z ") {
            assert!(Instant::now() < deadline, "it goes on: {}", state());
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

/// What a plugin says that its process is.
async fn number(lab: &Lab) -> i32 {
    loop {
        if let Ok(pid) = lab.read("pid").trim().parse() {
            return pid;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn collection_waits_for_additions_and_keeps_later_ones_waiting() {
    lab(|lab| {
        let log_path = lab.path("log");
        plugin(lab, "p1", &format!("sleep 0.3; echo done >> {}", log_path.display()), "");
        let (network, cni) = (chain(&["p1"], "1.1.0"), lab.cni());
        let other = Attachment { container_id: "b".into(), ..attachment() };
        let valid = vec![("a".to_owned(), "eth0".to_owned()), ("b".to_owned(), "eth0".to_owned())];
        lab.wait(async {
            let (first, gc, second) = tokio::join!(
                biased;
                cni.add(&network, attachment()),
                cni.gc(&network, || Ok(valid)),
                cni.add(&network, other)
            );
            first.and(gc).and(second.map(drop)).unwrap();
        });
        assert_eq!(log(lab), "ADD p1, done, GC p1, ADD p1, done");
    });
}
