//! What commands print: the documents and tables whose form callers know from runc.

use anyhow::{Context, Result};
use hull_specs_oci as oci;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::{log, report::Listed};

/// `--version`. Callers look for `NAME version NUMBER` in the first line, and for `commit:`
/// and `spec:`; no other line may hold the word `version`, because dockerd takes the last
/// one that does.
pub(super) fn version() -> String {
    let commit = option_env!("HULL_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map(|commit| format!("commit: {commit}\n")).unwrap_or_default();
    format!("hull-runtime version {}\n{commit}spec: {}\n", env!("CARGO_PKG_VERSION"), oci::VERSION)
}

/// `state`: one object, indented by two.
pub(super) fn state(state: &Listed) -> Result<Vec<u8>> {
    pretty(state, b"  ")
}

/// `features`: one object, indented by four.
pub(super) fn features(features: &oci::features::Features) -> Result<Vec<u8>> {
    pretty(features, b"    ")
}

/// Any document of our own.
pub(super) fn json_pretty(document: &impl Serialize) -> Result<Vec<u8>> {
    pretty(document, b"  ")
}

/// One line of JSON.
pub(super) fn json_line(document: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(document).context("print JSON")?;
    line.push(b'\n');
    Ok(line)
}

pub(super) fn pretty(document: &impl Serialize, indent: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(indent));
    document.serialize(&mut serializer).context("print JSON")?;
    out.push(b'\n');
    Ok(out)
}

/// `list --quiet`.
pub(super) fn names(containers: &[Listed]) -> String {
    containers.iter().map(|container| format!("{}\n", container.id)).collect()
}

/// `list`: columns of at least 12 letters, 3 blanks between; the last is not padded.
pub(super) fn table(containers: &[Listed]) -> String {
    const TITLE: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    let row = |container: &Listed| {
        [
            container.id.clone(),
            container.pid.to_string(),
            container.status.to_string(),
            log::printable(&container.bundle),
            container.created.clone(),
            log::printable(&container.owner),
        ]
    };
    let mut rows = vec![TITLE.map(str::to_owned)];
    rows.extend(containers.iter().map(row));
    let mut widths = [12; TITLE.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (cell.chars().count() + 3).max(*width);
        }
    }
    let mut table = String::new();
    for row in &rows {
        let (last, padded) = row.split_last().unwrap_or((const { &String::new() }, &[]));
        for (cell, width) in padded.iter().zip(widths) {
            table.push_str(&format!("{cell:width$}"));
        }
        table.push_str(last);
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Listed {
        Listed {
            oci_version: "1.2.0".to_owned(),
            id: "busybox".to_owned(),
            pid: 4242,
            status: oci::Status::Running,
            bundle: "/bundles/busybox".to_owned(),
            rootfs: "/bundles/busybox/rootfs".to_owned(),
            created: "2026-11-21T10:11:12.5Z".to_owned(),
            annotations: Default::default(),
            owner: "root".to_owned(),
        }
    }

    #[test]
    fn state_is_runc_s_document() {
        let mut state = listed();
        state.owner.clear();
        assert_eq!(
            String::from_utf8(super::state(&state).unwrap()).unwrap(),
            r#"{
  "ociVersion": "1.2.0",
  "id": "busybox",
  "pid": 4242,
  "status": "running",
  "bundle": "/bundles/busybox",
  "rootfs": "/bundles/busybox/rootfs",
  "created": "2026-11-21T10:11:12.5Z",
  "owner": ""
}
"#
        );
    }

    #[test]
    fn a_stopped_container_shows_pid_0_and_its_annotations() {
        let mut state = listed();
        state.pid = 0;
        state.status = oci::Status::Stopped;
        state.annotations.insert("a".to_owned(), "b".to_owned());
        let line = String::from_utf8(json_line(&[state]).unwrap()).unwrap();
        assert_eq!(
            line,
            "[{\"ociVersion\":\"1.2.0\",\"id\":\"busybox\",\"pid\":0,\"status\":\"stopped\",\
             \"bundle\":\"/bundles/busybox\",\"rootfs\":\"/bundles/busybox/rootfs\",\
             \"created\":\"2026-11-21T10:11:12.5Z\",\"annotations\":{\"a\":\"b\"},\
             \"owner\":\"root\"}]\n"
        );
    }

    #[test]
    fn the_table_s_columns_line_up() {
        let mut other = listed();
        other.id = "x".to_owned();
        other.bundle = "/b\u{1b}[2J".to_owned();
        assert_eq!(
            table(&[listed(), other]),
            "\
ID          PID         STATUS      BUNDLE             CREATED                  OWNER
busybox     4242        running     /bundles/busybox   2026-11-21T10:11:12.5Z   root
x           4242        running     /b\\x1b[2J          2026-11-21T10:11:12.5Z   root
"
        );
        assert_eq!(
            table(&[]),
            "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
        );
    }

    #[test]
    fn dockerd_and_podman_find_the_version() {
        let text = version();
        let first = text.lines().next().unwrap();
        assert_eq!(first, concat!("hull-runtime version ", env!("CARGO_PKG_VERSION")));
        assert_eq!(text.matches("version").count(), 1, "{text}");
        assert!(text.ends_with("\nspec: 1.3.0\n"), "{text}");
    }
}
