//! `top`: the host's ps, and of its lines those of the container's processes.

use std::{collections::BTreeSet, process::Stdio};

use hull_manager_core::{Error, Result, error::IoContext as _};
use hull_specs_api::v1;
use tokio::{io::AsyncReadExt as _, process::Command};

use crate::{Containers, state::Ask};

/// The most that is read of what ps prints, in bytes.
const MAX_OUTPUT: u64 = 32 << 20;

/// The lines about `pids`.
fn choose(output: &str, pids: &BTreeSet<u32>) -> Result<v1::TopResponse> {
    let mut lines = output.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let at = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::invalid("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let mut fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let pid = fields.get(at).and_then(|field| field.parse().ok());
        if !pid.is_some_and(|pid| pids.contains(&pid)) {
            continue;
        }
        // The last column is a command, with spaces.
        if fields.len() > titles.len() {
            let rest = fields.split_off(titles.len() - 1);
            fields.push(rest.join(" "));
        }
        processes.push(v1::Words { words: fields });
    }
    Ok(v1::TopResponse { titles, processes })
}

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// If it does not run, or ps refuses its arguments.
    pub async fn top(&self, request: v1::TopRequest) -> Result<v1::TopResponse> {
        let handle = self.find(&request.container)?;
        let shim = handle.shim(Ask::Top, &request.container)?;
        let pids: BTreeSet<u32> = shim.pids().await?.into_iter().collect();
        let default = ["-ef".to_owned()];
        let args = if request.ps_args.is_empty() { &default[..] } else { &request.ps_args };
        let mut ps = Command::new("ps")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .about("ps")?;
        let (mut output, mut said) = (Vec::new(), Vec::new());
        let (stdout, stderr) = (ps.stdout.take(), ps.stderr.take());
        let read = async {
            if let Some(stdout) = stdout {
                stdout.take(MAX_OUTPUT).read_to_end(&mut output).await?;
            }
            Ok::<(), std::io::Error>(())
        };
        let hear = async {
            if let Some(stderr) = stderr {
                stderr.take(4096).read_to_end(&mut said).await?;
            }
            Ok::<(), std::io::Error>(())
        };
        tokio::try_join!(read, hear).about("ps")?;
        if !ps.wait().await.about("ps")?.success() {
            let said = String::from_utf8_lossy(&said);
            let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            return Err(Error::invalid(format!("ps: {}", first.trim())));
        }
        let response = choose(&String::from_utf8_lossy(&output), &pids)?;
        self.0.event(&handle.record(), "top", &[]);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_are_shown_and_commands_stay_whole() {
        let output = "UID  PID  CMD\nroot 1 init\nroot 22 sh -c sleep 1\nroot 220 x\n";
        let found = choose(output, &[22, 7].into()).unwrap();
        assert_eq!(found.titles, ["UID", "PID", "CMD"]);
        assert_eq!(found.processes.len(), 1);
        assert_eq!(found.processes[0].words, ["root", "22", "sh -c sleep 1"]);
        assert!(choose("CMD\nx\n", &[1].into()).is_err());
        assert!(choose("", &[1].into()).is_err());
    }
}
