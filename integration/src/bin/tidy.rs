//! `make check`: the repository's own rules, as ARCHITECTURE.md states them.
//!
//! Reads `cargo metadata` and the tracked files; changes nothing. A rule that the
//! compiler or clippy can enforce is theirs, not repeated here.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What each package of the workspace may use of the workspace, in whole.
const EDGES: &[(&str, &[&str])] = &[
    ("hull-specs-oci", &[]),
    ("hull-runtime-sys", &[]),
    ("hull-runtime", &["hull-specs-oci", "hull-runtime-sys"]),
    ("hull-shim", &["hull-specs-oci", "hull-runtime-sys"]),
    ("hull-specs-image", &[]),
    ("hull-specs-api", &[]),
    ("hull-specs-docker", &["hull-specs-api", "hull-specs-image", "hull-specs-oci"]),
    ("hull-manager-core", &["hull-specs-oci", "hull-specs-api", "hull-runtime-sys"]),
    ("hull-manager-archive", &["hull-specs-image", "hull-runtime-sys"]),
    ("hull-manager-content", &["hull-manager-core", "hull-specs-image", "hull-specs-api"]),
    (
        "hull-manager-snapshots",
        &["hull-manager-core", "hull-manager-archive", "hull-specs-image", "hull-runtime-sys"],
    ),
    ("hull-manager-registry", &["hull-manager-core", "hull-specs-image"]),
    (
        "hull-manager-volumes",
        &["hull-manager-core", "hull-manager-archive", "hull-specs-api", "hull-runtime-sys"],
    ),
    ("hull-init", &["hull-runtime-sys"]),
    // The system calls of its tests only: namespaces.
    ("hull-manager-firewall", &["hull-runtime-sys"]),
    ("hull-manager-spec", &["hull-specs-oci", "hull-specs-image", "hull-specs-api"]),
    (
        "hull-manager-images",
        &[
            "hull-manager-core",
            "hull-manager-content",
            "hull-manager-archive",
            "hull-manager-snapshots",
            "hull-manager-registry",
            "hull-specs-image",
            "hull-specs-oci",
            "hull-specs-api",
            "hull-runtime-sys",
        ],
    ),
    (
        "hull-manager-containers",
        &[
            "hull-manager-core",
            "hull-manager-images",
            "hull-manager-archive",
            "hull-manager-snapshots",
            "hull-manager-volumes",
            "hull-manager-spec",
            "hull-specs-image",
            "hull-specs-oci",
            "hull-specs-api",
            "hull-runtime-sys",
        ],
    ),
    ("hull-manager-names", &["hull-manager-core", "hull-manager-firewall", "hull-runtime-sys"]),
    ("hull-manager-cni", &["hull-manager-core", "hull-runtime-sys"]),
    (
        "hull-cni",
        &["hull-manager-core", "hull-manager-networks", "hull-manager-cni", "hull-runtime-sys"],
    ),
    (
        "hull-manager-networks",
        &[
            "hull-manager-core",
            "hull-manager-firewall",
            "hull-manager-names",
            "hull-manager-cni",
            "hull-specs-api",
            "hull-runtime-sys",
        ],
    ),
    // Protocols know the domain, and no other protocol.
    (
        "hull-manager-api",
        &[
            "hull-manager-core",
            "hull-manager-images",
            "hull-manager-containers",
            "hull-manager-volumes",
            "hull-specs-api",
        ],
    ),
    // The only package that knows every implementation.
    (
        "hulld",
        &[
            "hull-manager-core",
            "hull-manager-content",
            "hull-manager-archive",
            "hull-manager-snapshots",
            "hull-manager-registry",
            "hull-manager-images",
            "hull-manager-volumes",
            "hull-manager-spec",
            "hull-manager-containers",
            "hull-manager-api",
            "hull-specs-api",
            "hull-specs-image",
            "hull-runtime-sys",
        ],
    ),
    // The command line unpacks what `cp` brings by the same applier.
    (
        "hull",
        &[
            "hull-manager-archive",
            "hull-specs-api",
            "hull-specs-docker",
            "hull-specs-image",
            "hull-specs-oci",
            "hull-runtime-sys",
        ],
    ),
    ("hull-integration", &["hull-specs-oci"]),
    ("hull-integration-probe", &[]),
];

/// Packages whose whole tree of normal dependencies is kept small.
const LEAN: &[&str] = &["hull-runtime"];

/// What a lean tree may not hold: runtimes for async code, RPC, command-line frameworks.
const HEAVY: &[&str] = &[
    "async-executor",
    "async-io",
    "async-std",
    "clap",
    "futures",
    "h2",
    "hyper",
    "log",
    "mio",
    "prost",
    "protobuf",
    "regex",
    "reqwest",
    "smol",
    "tokio",
    "tonic",
    "tower",
    "tracing",
    "ttrpc",
    "zbus",
];

/// The one folder that may hold `unsafe`.
const UNSAFE_FOLDER: &str = "runtime/sys/";

/// Lines of a file, without its tests. At half of it a reviewer asks.
const MAX_LINES: usize = 800;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "misc", "util", "utils"];

/// Manifest keys that every package takes from the workspace.
const INHERITED: &[&str] = &["edition", "license", "publish", "rust-version", "version"];

fn main() -> ExitCode {
    match run() {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in &findings {
                eprintln!("tidy: {finding}");
            }
            eprintln!("tidy: {} to put right", findings.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tidy: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<Vec<String>> {
    let metadata = output("cargo", &["metadata", "--format-version=1", "--locked"])?;
    let metadata: Value = serde_json::from_str(&metadata).context("read cargo metadata")?;
    let root = metadata["workspace_root"].as_str().context("cargo metadata names no root")?;
    let mut findings = edges(&metadata)?;
    for package in members(&metadata) {
        let path = package["manifest_path"].as_str().context("a package has no manifest")?;
        let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        findings.extend(manifest(name(package), &text));
    }
    for file in tracked(root)? {
        let Ok(bytes) = fs::read(Path::new(root).join(&file)) else { continue };
        let Ok(text) = String::from_utf8(bytes) else { continue };
        findings.extend(any_file(root, &file, &text));
        if file.ends_with(".rs") {
            findings.extend(rust_file(&file, &text));
        }
    }
    Ok(findings)
}

/// The repository's files. From a source archive, without git: everything but what is built.
fn tracked(directory: &str) -> Result<Vec<String>> {
    // Files that are not yet added count too: they are about to be.
    let words = ["-C", directory, "ls-files", "--cached", "--others", "--exclude-standard"];
    let files = match output("git", &words) {
        Ok(list) => list.lines().map(str::to_owned).collect(),
        Err(_) => output(
            "find",
            &[directory, "-name", "target*", "-prune", "-o", "-type", "f", "-print"],
        )?
        .lines()
        .filter_map(|line| line.strip_prefix(directory)?.strip_prefix('/'))
        .map(str::to_owned)
        .collect(),
    };
    Ok(files)
}

fn output(program: &str, words: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(words).output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{program} {} ended with {}: {}", words.join(" "), output.status, reason.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} did not print text"))
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    let ids: BTreeSet<_> = items(&metadata["workspace_members"]).map(Value::to_string).collect();
    items(&metadata["packages"]).filter(move |package| ids.contains(&package["id"].to_string()))
}

/// Dependencies between the workspace's packages, and what lean packages draw in.
fn edges(metadata: &Value) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let names: BTreeSet<_> = members(metadata).map(name).collect();
    for package in members(metadata) {
        let from = name(package);
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == from) else {
            findings.push(format!("{from}: not in the table of allowed dependencies"));
            continue;
        };
        for to in items(&package["dependencies"]).map(name) {
            if names.contains(to) && !allowed.contains(&to) {
                findings.push(format!("{from} must not depend on {to}"));
            }
        }
    }
    for lean in LEAN.iter().filter(|lean| names.contains(*lean)) {
        for found in
            normal_tree(metadata, lean)?.iter().filter(|name| HEAVY.contains(&name.as_str()))
        {
            findings.push(format!("{lean} must not draw in {found}"));
        }
    }
    Ok(findings)
}

/// The names of all that is linked into a package.
fn normal_tree(metadata: &Value, root: &str) -> Result<BTreeSet<String>> {
    let package = members(metadata).find(|package| name(package) == root);
    let mut open = vec![package.with_context(|| format!("no package {root}"))?["id"].clone()];
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id.to_string()) {
            continue;
        }
        let package = items(&metadata["packages"]).find(|package| package["id"] == id);
        found.extend(package.map(|package| name(package).to_owned()));
        let node = items(&metadata["resolve"]["nodes"]).find(|node| node["id"] == id);
        let node = node.with_context(|| format!("cargo resolved no {id}"))?;
        let linked = items(&node["deps"])
            .filter(|dep| items(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null()));
        open.extend(linked.map(|dep| dep["pkg"].clone()));
    }
    found.remove(root);
    Ok(found)
}

/// What a package takes from the workspace.
fn manifest(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    for key in INHERITED {
        if !lines.iter().any(|line| *line == format!("{key}.workspace = true")) {
            findings.push(format!("{name}: {key} is not the workspace's"));
        }
    }
    let lints = lines.iter().position(|line| *line == "[lints]");
    if lints.and_then(|at| lines.get(at + 1)) != Some(&"workspace = true") {
        findings.push(format!("{name}: the lints are not the workspace's"));
    }
    let mut section = "";
    for line in lines {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]")
            && line.contains('=')
            && !line.contains("workspace = true")
        {
            findings.push(format!("{name}: not from the workspace's table: {line}"));
        }
    }
    findings
}

/// Rules for every file that is text. `root` is where this working copy is.
fn any_file(root: &str, path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    // Put together here, so that this file does not hold what it looks for.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X:"]].map(|parts| parts.concat());
    for (number, line) in text.lines().enumerate() {
        let at = format!("{path}:{}", number + 1);
        if marks.iter().any(|mark| has_word(line, mark)) {
            findings.push(format!("{at}: an issue is the place for what is to be done"));
        }
        if line.contains(root) || names_a_home(line) {
            findings.push(format!("{at}: a path of somebody's machine"));
        }
        if line.ends_with([' ', '\t']) && !path.ends_with(".md") {
            findings.push(format!("{at}: blanks at the end"));
        }
    }
    findings
}

/// Whether a path leads below somebody's home. The home itself may be named: containers
/// have users too.
fn names_a_home(line: &str) -> bool {
    ["/home/", "/Users/", "/root/."].iter().any(|homes| {
        line.match_indices(homes).any(|(at, _)| {
            let rest = line[at + homes.len()..].trim_start_matches(is_word);
            rest.starts_with('/') && rest.len() < line.len() - at - homes.len()
        })
    })
}

/// Rules for Rust.
fn rust_file(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let stem = |part: &str| part.trim_end_matches(".rs").to_owned();
    if path.split('/').map(stem).any(|part| EMPTY_NAMES.contains(&part.as_str())) {
        findings.push(format!("{path}: the name says nothing; name the concept"));
    }
    if !is_test_file(path) {
        let lines = lines_without_tests(text);
        if lines > MAX_LINES {
            findings.push(format!("{path}: {lines} lines, {MAX_LINES} are allowed"));
        }
    }
    let ignored = ["#[ig", "nore"].concat();
    for (number, line) in text.lines().enumerate() {
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        let at = format!("{path}:{}", number + 1);
        if !path.starts_with(UNSAFE_FOLDER) && is_unsafe(code) {
            findings.push(format!("{at}: unsafe code belongs in {UNSAFE_FOLDER}"));
        }
        if code.starts_with(&ignored) {
            findings.push(format!("{at}: a test that is not run"));
        }
    }
    findings
}

/// Files of nothing but tests.
fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// Counts the lines before the module of tests, which house style puts last.
fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<_> = text.lines().collect();
    lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "))
        .unwrap_or(lines.len())
}

/// Whether a line of code opens something unsafe. Attributes such as
/// `#![forbid(unsafe_code)]` name another word, and text is not told apart from code:
/// write it with another word.
fn is_unsafe(code: &str) -> bool {
    ["{", "fn", "impl", "extern", "trait"].iter().any(|what| {
        let phrase = format!("{}safe {what}", "un");
        code.match_indices(&phrase).any(|(at, _)| !ends_in_word(&code[..at]))
    })
}

/// Whether `word` is in the text as a word, not as a part of one.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let next = text[at + word.len()..].chars().next();
        !ends_in_word(&text[..at]) && !next.is_some_and(is_word)
    })
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependencies: &[&str]) -> Value {
        let dependencies: Vec<_> =
            dependencies.iter().map(|name| json!({ "name": name })).collect();
        json!({ "name": name, "id": format!("id of {name}"), "dependencies": dependencies })
    }

    /// A workspace of `members`; the resolved graph has `normal` and `dev` edges.
    fn workspace(
        members: &[Value],
        others: &[&str],
        normal: &[(&str, &str)],
        dev: &[(&str, &str)],
    ) -> Value {
        let others: Vec<_> = others.iter().map(|name| package(name, &[])).collect();
        let packages: Vec<_> = members.iter().chain(&others).cloned().collect();
        let nodes: Vec<_> = packages
            .iter()
            .map(|package| {
                let kinds = [(normal, Value::Null), (dev, json!("dev"))];
                let deps: Vec<_> = kinds
                    .iter()
                    .flat_map(|(edges, kind)| edges.iter().map(move |edge| (edge, kind)))
                    .filter(|((from, _), _)| *from == name(package))
                    .map(|((_, to), kind)| {
                        json!({ "pkg": format!("id of {to}"), "dep_kinds": [{ "kind": kind }] })
                    })
                    .collect();
                json!({ "id": package["id"], "deps": deps })
            })
            .collect();
        let ids: Vec<_> = members.iter().map(|package| package["id"].clone()).collect();
        json!({
            "packages": packages, "workspace_members": ids, "resolve": { "nodes": nodes },
        })
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_found() {
        let members = [
            package("hull-specs-oci", &["serde"]),
            package("hull-runtime-sys", &["hull-specs-oci"]),
            package("hull-new", &[]),
        ];
        let metadata = workspace(&members, &[], &[], &[]);
        assert_eq!(
            edges(&metadata).expect("the metadata is complete"),
            [
                "hull-runtime-sys must not depend on hull-specs-oci",
                "hull-new: not in the table of allowed dependencies"
            ]
        );
    }

    #[test]
    fn what_a_dependency_draws_in_counts_and_what_tests_use_does_not() {
        let members = [package("hull-runtime", &["innocent"])];
        let others = ["innocent", "tokio", "regex"];
        let normal = [("hull-runtime", "innocent"), ("innocent", "tokio")];
        let metadata = workspace(&members, &others, &normal, &[("hull-runtime", "regex")]);
        assert_eq!(
            edges(&metadata).expect("the metadata is complete"),
            ["hull-runtime must not draw in tokio"]
        );
    }

    #[test]
    fn a_manifest_takes_everything_from_the_workspace() {
        let mut text = String::from("[package]\n");
        for key in INHERITED {
            text.push_str(&format!("{key}.workspace = true\n"));
        }
        text.push_str("[dependencies]\nserde = { workspace = true }\n[lints]\nworkspace = true\n");
        assert!(manifest("x", &text).is_empty());
        let own = text.replace("serde = { workspace = true }", "serde = \"1\"");
        assert_eq!(manifest("x", &own), ["x: not from the workspace's table: serde = \"1\""]);
        let unlinted = text.replace("[lints]\nworkspace = true", "");
        assert_eq!(manifest("x", &unlinted), ["x: the lints are not the workspace's"]);
        let versioned = text.replace("version.workspace = true\n", "version = \"2\"\n");
        assert!(
            manifest("x", &versioned).contains(&"x: version is not the workspace's".to_owned())
        );
    }

    fn in_any_file(text: &str) -> usize {
        any_file("/src/hull", "a.sh", text).len()
    }

    #[test]
    fn marks_are_found_as_words() {
        let mark = ["TO", "DO"].concat();
        assert_eq!(in_any_file(&format!("# {mark}: later")), 1);
        assert_eq!(in_any_file(&format!("{mark}_LIST=1")), 0);
        assert_eq!(in_any_file("fn a() {} "), 1);
    }

    #[test]
    fn paths_of_this_machine_are_found_and_those_of_containers_are_not() {
        for homes in ["home", "Users"] {
            assert_eq!(in_any_file(&format!("cd /{homes}/someone/hull")), 1);
        }
        assert_eq!(in_any_file("/src/hull/Makefile"), 1);
        assert_eq!(in_any_file("user:x:1000:1000:user:/home/user:/bin/sh"), 0);
        assert_eq!(in_any_file("/run/hull-runtime"), 0);
    }

    #[test]
    fn unsafe_is_found_outside_its_crate_only() {
        let block = format!("let x = {}safe {{ call() }};", "un");
        assert_eq!(rust_file("runtime/src/a.rs", &block).len(), 1);
        assert!(rust_file("runtime/sys/src/a.rs", &block).is_empty());
        assert!(rust_file("runtime/src/a.rs", "#![forbid(unsafe_code)]").is_empty());
        assert!(rust_file("runtime/src/a.rs", &format!("// {block}")).is_empty());
    }

    #[test]
    fn tests_do_not_count_as_lines_of_a_file() {
        let code = "let x = 1;\n".repeat(MAX_LINES);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert!(rust_file("a/src/b.rs", &format!("{code}{tests}")).is_empty());
        assert_eq!(rust_file("a/src/b.rs", &format!("{code}\n{tests}")).len(), 1);
        assert!(rust_file("a/src/tests.rs", &format!("{code}\n")).is_empty());
    }

    #[test]
    fn names_and_ignored_tests_are_found() {
        assert_eq!(rust_file("a/src/utils.rs", "").len(), 1);
        assert_eq!(rust_file("a/src/helpers/mod.rs", "").len(), 1);
        assert!(rust_file("a/src/utility_model.rs", "").is_empty());
        let ignored = ["    #[ig", "nore]\n"].concat();
        assert_eq!(rust_file("a/src/b.rs", &ignored).len(), 1);
    }
}
