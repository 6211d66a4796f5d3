//! A container's life, step by step, by plain calls.

use std::path::Path;

use hull_integration::shim::rpc::{self, Message};
use hull_integration::shim::{Client, Host, Io, Refusal, SLEEPER, SOON, ended, time};
use hull_integration::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// What is done to the container, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Create,
    Start,
    Exec,
    Exit,
    Delete,
}

pub(crate) const STEPS: [Step; 5] =
    [Step::Create, Step::Start, Step::Exec, Step::Exit, Step::Delete];

/// A container of its own host, whose shim is started.
pub(crate) struct Life {
    pub(crate) host: Host,
    pub(crate) client: Client,
    io: Io,
    pid: u32,
}

const ID: &str = "one";

impl Life {
    pub(crate) fn new() -> Self {
        Self::with(&format!("printf begun; {SLEEPER}"), "")
    }

    /// One of a certain program, with more options for its log.
    pub(crate) fn with(script: &str, options: &str) -> Self {
        let host = Host::new();
        let log = host.site().path("one.log");
        let attach = host.site().path("attach.sock");
        let io = Io {
            stdin: "hull-attach:".to_owned(),
            stdout: format!("hull-log://{log}?attach={attach}{options}"),
            ..Io::default()
        };
        let plan = host.shell(ID, script);
        host.make_bundle(ID, &plan.config);
        let launch = plan.launch.clone();
        drop(plan);
        let (_, client) = host.start_shim(launch);
        Self { host, client, io, pid: 0 }
    }

    pub(crate) fn log(&self) -> String {
        self.host.site().path("one.log")
    }

    pub(crate) fn shim(&self) -> i32 {
        self.host.shim_pid(ID)
    }

    pub(crate) fn bundle(&self) -> String {
        self.host.launch(ID).bundle
    }

    /// Does one step, with all that a caller would ask.
    pub(crate) fn step(&mut self, step: Step) -> Result<(), Refusal> {
        let id = || ID.to_owned();
        match step {
            Step::Create => {
                let launch = self.host.launch(ID);
                let options = rpc::Any {
                    type_url: "containerd.runc.v1.Options".to_owned(),
                    value: launch.options.write_to_bytes().expect("valid"),
                    ..Default::default()
                };
                let request = rpc::CreateTaskRequest {
                    id: id(),
                    bundle: launch.bundle,
                    rootfs: vec![self.host.overlay(ID)],
                    stdin: self.io.stdin.clone(),
                    stdout: self.io.stdout.clone(),
                    options: Some(options).into(),
                    ..Default::default()
                };
                let answer: rpc::CreateTaskResponse = self.client.call("Create", &request)?;
                self.pid = answer.pid;
            }
            Step::Start => {
                let request = rpc::StartRequest { id: id(), ..Default::default() };
                self.client.call::<_, rpc::StartResponse>("Start", &request)?;
            }
            Step::Exec => {
                let spec = json!({ "args": ["sh", "-c", "exit 5"], "cwd": "/",
                    "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
                let spec = rpc::Any { value: spec.to_string().into_bytes(), ..Default::default() };
                let exec_id = || "exec".to_owned();
                let request = rpc::ExecProcessRequest {
                    id: id(),
                    exec_id: exec_id(),
                    spec: Some(spec).into(),
                    ..Default::default()
                };
                self.client.call::<_, rpc::Empty>("Exec", &request)?;
                let start =
                    rpc::StartRequest { id: id(), exec_id: exec_id(), ..Default::default() };
                self.client.call::<_, rpc::StartResponse>("Start", &start)?;
                let wait = rpc::WaitRequest { id: id(), exec_id: exec_id(), ..Default::default() };
                let exit: rpc::WaitResponse = self.client.call("Wait", &wait)?;
                assert_eq!(exit.exit_status, 5);
                let delete =
                    rpc::DeleteRequest { id: id(), exec_id: exec_id(), ..Default::default() };
                self.client.call::<_, rpc::DeleteResponse>("Delete", &delete)?;
            }
            Step::Exit => {
                self.terminate();
                let wait = rpc::WaitRequest { id: id(), ..Default::default() };
                let exit: rpc::WaitResponse = self.client.call("Wait", &wait)?;
                assert_eq!(exit.exit_status, 7);
            }
            Step::Delete => {
                let delete = rpc::DeleteRequest { id: id(), ..Default::default() };
                let answer: rpc::DeleteResponse = self.client.call("Delete", &delete)?;
                assert_eq!(answer.exit_status, 7);
            }
        }
        Ok(())
    }

    /// Asks the program to end, once it can hear.
    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.pid).expect("process ids are positive");
        wait_until("the program can hear", SOON, || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            let caught = |line: &str| {
                let mask = u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok()?;
                Some(mask & (1 << 14) != 0)
            };
            status.is_ok_and(|text| text.lines().find_map(caught) == Some(true))
        });
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
    }

    /// Kills the shim.
    pub(crate) fn kill(&self) {
        self.host.kill_shim(ID);
    }

    /// Whether the shim is gone.
    pub(crate) fn is_dead(&self) -> bool {
        ended(self.shim())
    }

    /// The shim is dead: its `delete` has to remove everything and to say the truth.
    #[track_caller]
    pub(crate) fn clean_up(&self, known: &[u32]) {
        let answer = self.host.delete_after_shim(ID);
        assert!(known.contains(&answer.exit_status), "{answer}");
        assert!(answer.exited_at.as_ref().and_then(time).is_some(), "{answer}");
        for left in [
            self.host.site().path("attach.sock"),
            format!("{}.partial", self.log()),
            format!("{}/test/{ID}", self.host.runtime_root()),
            format!("/proc/{}/exe", if self.pid == 0 { u32::MAX } else { self.pid }),
        ] {
            assert!(!Path::new(&left).exists(), "{left} is left");
        }
        let left = self.host.site().cgroup_directories(ID);
        assert!(left.is_empty(), "{left:?}");
        // Processes, mounts and states of the runtime: the host looks for them.
    }

    /// The shim lives: everything is ended by it.
    #[track_caller]
    pub(crate) fn end(mut self, last: Step) {
        for step in STEPS.into_iter().filter(|step| *step > last && *step != Step::Exec) {
            self.step(step).unwrap_or_else(|refusal| panic!("{step:?}: {refusal:?}"));
        }
        self.host.shut_down(ID);
    }
}
