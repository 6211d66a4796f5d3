//! Mutated configurations through `create` and `explain`: no panic, no residue, one
//! sentence each.
//!
//! `HULL_MUTATIONS` is how many there are in all (default 1,200, half of them valid);
//! `HULL_SEED` starts another sequence. They never start a program.

use std::env;
use std::fs;

use hull_integration::mutation::{self, Mutant, Random};
use hull_integration::{Bundle, Container, Output, Peer, note, peer_lacks, runtime, tests};
use serde_json::{Value, json};

tests![
    every_mutant_ends_well_first_quarter,
    every_mutant_ends_well_second_quarter,
    every_mutant_ends_well_third_quarter,
    every_mutant_ends_well_last_quarter,
];

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn every_mutant_ends_well_first_quarter() {
    quarter(0);
}

fn every_mutant_ends_well_second_quarter() {
    quarter(1);
}

fn every_mutant_ends_well_third_quarter() {
    quarter(2);
}

fn every_mutant_ends_well_last_quarter() {
    quarter(3);
}

/// A configuration with something in most of its places.
fn rich() -> Bundle {
    Bundle::sleeper()
        .set("/annotations", json!({ "org.example": "value" }))
        .set("/process/user", json!({ "uid": 0, "gid": 0, "additionalGids": [5], "umask": 18 }))
        .set("/process/oomScoreAdj", 100)
        .push("/process/rlimits", json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }))
        .set("/linux/sysctl", json!({ "net.ipv4.ip_unprivileged_port_start": "0" }))
        .set("/linux/resources/pids", json!({ "limit": 100 }))
        .set("/linux/resources/memory", json!({ "limit": 256 << 20 }))
        .set("/linux/resources/cpu", json!({ "shares": 512, "quota": 100_000, "period": 100_000 }))
        .set(
            "/linux/devices",
            json!([{ "path": "/dev/odd", "type": "c", "major": 1, "minor": 3,
                                        "fileMode": 438, "uid": 0, "gid": 0 }]),
        )
        .push(
            "/linux/resources/devices",
            json!({ "allow": true, "type": "c", "major": 60,
                                                  "minor": 1, "access": "rw" }),
        )
        .push("/hooks/createRuntime", json!({ "path": "/bin/true", "timeout": 10 }))
        .set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                "syscalls": [
                    { "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
                      "args": [{ "index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ" }] },
                    { "names": ["kexec_load", "reboot"], "action": "SCMP_ACT_ERRNO" },
                ],
            }),
        )
}

fn quarter(index: u64) {
    peer_lacks!("crun", "it crashes on some and leaves v1 cgroups on others");
    rounds(index, number("HULL_MUTATIONS", 1200) / 4);
}

fn rounds(index: u64, count: u64) {
    let container = Container::new(rich())
        // A mutant may have no mount, uts or ipc namespace: then this one is changed.
        .prelude("true")
        .prelude("mount --make-rprivate /");
    let base: Value = container.bundle.config.clone();
    let mut random = Random::new(number("HULL_SEED", 1) * 1_000_003 + index);
    for round in 0..count {
        let is_valid = round % 2 == 0;
        let mutant = match is_valid {
            true => mutation::valid(&base, &mut random),
            false => mutation::broken(&base, &mut random),
        };
        note(&format!("round {round}: {}", mutant.what));
        fs::write(container.bundle.dir().join("config.json"), &mutant.text).expect("writable");
        one(&container, &mutant, is_valid);
        if round % 50 == 0 {
            container.assert_gone();
        }
    }
    container.assert_gone();
}

fn one(container: &Container, mutant: &Mutant, is_valid: bool) {
    if runtime().peer == Peer::Hull {
        let explained =
            container.invoke(&["explain", "--bundle"]).arg(container.bundle.dir()).run();
        ends_well(&explained, mutant);
        if is_valid {
            let summary = explained.summary();
            assert_eq!(explained.code(), Some(0), "{}: {summary}", mutant.what);
            assert!(!explained.text().is_empty(), "{}: explains nothing", mutant.what);
        }
    }
    let created = container.create();
    ends_well(&created, mutant);
    if is_valid {
        assert_eq!(created.code(), Some(0), "{}: {}", mutant.what, created.summary());
    }
    if created.code() == Some(0) {
        assert_eq!(container.status(), "created", "{}", mutant.what);
        container.delete_force().ok();
    }
    let state = container.root().join(&container.id);
    assert!(!state.exists(), "{} is left after {}", state.display(), mutant.what);
}

/// A sentence may name what it is about, and a text of the input has up to some 5,000
/// letters, each of which may have to be escaped.
const SENTENCE_BYTES_MAX: usize = 32 << 10;

/// Success in silence, or an exit code and one clean sentence.
fn ends_well(output: &Output, mutant: &Mutant) {
    let what = &mutant.what;
    assert_eq!(output.signal(), None, "{what}: {}", output.summary());
    assert!(!output.stderr.contains("panicked"), "{what}: {}", output.summary());
    // One sentence, and no control character of the input in it, is what we hold
    // ourselves to.
    if output.code() == Some(0) || runtime().peer != Peer::Hull {
        return;
    }
    let text = output.stderr.trim_end_matches('\n').replace('\n', " ");
    assert_eq!(output.complaints().len(), 1, "{what}: not one sentence: {text}");
    assert!(
        !text.chars().any(|letter| letter.is_control()),
        "{what}: control characters: {text:?}"
    );
    assert!(text.len() < SENTENCE_BYTES_MAX, "{what}: a sentence of {} bytes", text.len());
}
