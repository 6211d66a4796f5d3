//! `ps`: the host's process table, cut down to a container.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::log;

/// Runs the host's `ps` and keeps the lines of these processes.
pub(super) fn table(pids: &[i32], options: &[String]) -> Result<String> {
    let mut ps = Command::new("ps");
    if options.is_empty() {
        ps.arg("-ef");
    } else {
        ps.args(options);
    }
    let output = ps.output().context("run ps")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("ps: {}: {}", output.status, complaint.trim());
    }
    filter(&String::from_utf8_lossy(&output.stdout), pids)
}

/// The title and the lines whose PID column names one of the processes.
fn filter(output: &str, pids: &[i32]) -> Result<String> {
    let mut lines = output.lines();
    let title = lines.next().unwrap_or_default();
    let column = title
        .split_whitespace()
        .position(|name| name == "PID")
        .context("couldn't find PID field in ps output")?;
    let mut kept = format!("{}\n", log::printable(title));
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let field = line.split_whitespace().nth(column).unwrap_or_default();
        let pid = field.parse().with_context(|| format!("unable to parse pid {field:?}"))?;
        if pids.contains(&pid) {
            // A process names itself as it likes.
            kept.push_str(&log::printable(line));
            kept.push('\n');
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_by_the_pid_column_alone() {
        let output = "UID PID PPID CMD\nroot 7 1 sleep 8\nroot 8 7 sh\nroot 99 8 \u{1b}[2Jx\n\n";
        let kept = filter(output, &[7, 99]).unwrap();
        assert_eq!(kept, "UID PID PPID CMD\nroot 7 1 sleep 8\nroot 99 8 \\x1b[2Jx\n");
        assert_eq!(filter(output, &[]).unwrap(), "UID PID PPID CMD\n");
    }

    #[test]
    fn output_without_pids_is_refused() {
        assert!(filter("UID CMD\nroot sh\n", &[1]).unwrap_err().to_string().contains("PID field"));
        assert!(filter("", &[1]).is_err());
        assert!(filter("UID PID\nroot x\n", &[1]).is_err());
    }

    #[test]
    fn the_host_s_ps_finds_this_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let table = table(&[own], &[]).unwrap();
        assert_eq!(table.lines().count(), 2, "{table}");
        let bad = super::table(&[own], &["--no-such-option".to_owned()]);
        assert!(bad.unwrap_err().to_string().starts_with("ps: exit status"));
    }
}
