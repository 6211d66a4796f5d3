//! Starting a shim, in each of the ways that containerd had over time.

use std::fs;
use std::path::Path;

use containerd_shim_protos::bootstrap_api::{
    BootstrapParams, BootstrapResult, Extension, LogLevel,
};
use containerd_shim_protos::protobuf::{Message, MessageField};
use serde_json::Value;

use super::client::rpc::{Any, Options};
use super::{SOON, Version, containerd_directory, shim};
use crate::{Invocation, Output};

/// How a shim is told what to do, and how it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// containerd 1: options on standard input, the bare address comes back.
    Address,
    /// containerd 2.0 to 2.2: options on standard input, JSON comes back.
    Json,
    /// containerd 2.3: everything in one message, and one message comes back.
    Message,
}

impl Bootstrap {
    /// The way of the containerd whose tests these are.
    pub fn of_containerd() -> Self {
        let Some(directory) = containerd_directory() else { return Self::Address };
        let output = Invocation::new(directory.join("containerd")).arg("--version").run().ok();
        let version = output.stdout.split_whitespace().find_map(|word| {
            let mut numbers = word.strip_prefix('v')?.split('.').map(str::parse::<u32>);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        });
        match version.unwrap_or_else(|| panic!("no version in {:?}", output.stdout)) {
            (1, _) => Self::Address,
            (2, 0..=2) => Self::Json,
            _ => Self::Message,
        }
    }
}

/// The command line, environment and standard input of a shim.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The way.
    pub bootstrap: Bootstrap,
    /// containerd's namespace.
    pub namespace: String,
    /// The container.
    pub id: String,
    /// Its bundle.
    pub bundle: String,
    /// containerd's socket. Events go to the same with `.ttrpc` at its end.
    pub address: String,
    /// What the user asked of the shim.
    pub options: Options,
    /// `-debug`.
    pub debug: bool,
    /// Where sockets belong, for [`Bootstrap::Message`].
    pub socket_directory: Option<String>,
    /// Lines of shell to run first, in a mount namespace made for the shim alone.
    pub preludes: Vec<String>,
}

/// What `start` answered.
#[derive(Clone, Debug)]
pub struct StartReply {
    /// Where the shim listens.
    pub address: String,
    /// The newest service that it has.
    pub version: Version,
    /// The bytes.
    pub raw: Vec<u8>,
}

impl Launch {
    /// `start`, as far as its end.
    pub fn start(&self) -> Output {
        let arguments = self.debug.then_some("-debug").into_iter().chain(["start"]);
        let input = match self.bootstrap {
            Bootstrap::Message => self.parameters().write_to_bytes(),
            Bootstrap::Address | Bootstrap::Json => any(&self.options).write_to_bytes(),
        };
        self.command()
            .args(arguments)
            .cwd(&self.bundle)
            .stdin(input.expect("a message can be written"))
            .run()
    }

    /// `delete`, which containerd runs after the end of the shim.
    pub fn delete(&self) -> Output {
        self.command().args(["-bundle", &*self.bundle, "delete"]).cwd(&self.bundle).run()
    }

    fn command(&self) -> Invocation {
        let command = Invocation::new(&shim().path);
        let command = self.preludes.iter().fold(command, Invocation::prelude);
        let command = command
            .args(["-namespace", &*self.namespace, "-address", &*self.address])
            .args(["-publish-binary", "/usr/bin/containerd", "-id", &*self.id])
            .env("GOMAXPROCS", "2")
            .env("TTRPC_ADDRESS", format!("{}.ttrpc", self.address))
            .limit(SOON);
        match self.bootstrap {
            Bootstrap::Address => command,
            Bootstrap::Json | Bootstrap::Message => command
                .env("MAX_SHIM_VERSION", "2")
                .env("GRPC_ADDRESS", &self.address)
                .env("NAMESPACE", &self.namespace),
        }
    }

    fn parameters(&self) -> BootstrapParams {
        let extension =
            Extension { value: MessageField::some(any(&self.options)), ..Default::default() };
        let level = if self.debug { LogLevel::LOG_LEVEL_DEBUG } else { LogLevel::LOG_LEVEL_INFO };
        BootstrapParams {
            log_level: level.into(),
            instance_id: self.id.clone(),
            namespace: self.namespace.clone(),
            containerd_version: "v2.3.0".to_owned(),
            containerd_ttrpc_address: format!("{}.ttrpc", self.address),
            containerd_grpc_address: self.address.clone(),
            containerd_binary: "/usr/bin/containerd".to_owned(),
            extensions: vec![extension],
            socket_dir: self.socket_directory.clone(),
            ..Default::default()
        }
    }
}

/// The options as they travel.
pub(super) fn any(options: &Options) -> Any {
    Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value: options.write_to_bytes().expect("a message can be written"),
        ..Any::default()
    }
}

impl StartReply {
    /// Reads the answer as containerd does: what is on both standard streams.
    #[track_caller]
    pub fn of(output: &Output) -> Self {
        assert_eq!(output.stderr, "", "the answer is not alone: {}", output.transcript());
        let raw = fs::read(Path::new(&output.stdout_file)).expect("it was just written");
        let number = |version| match version {
            2 => Version::V2,
            3 => Version::V3,
            other => panic!("no containerd knows version {other}: {}", output.transcript()),
        };
        if let Ok(value) = serde_json::from_slice::<Value>(&raw) {
            assert_eq!(value["protocol"], "ttrpc", "{}", output.transcript());
            let address = value["address"].as_str().expect("the answer has an address");
            let version = number(value["version"].as_i64().expect("the answer has a version"));
            return Self { address: address.to_owned(), version, raw };
        }
        if raw.starts_with(b"unix://") {
            let address = String::from_utf8_lossy(&raw).trim().to_owned();
            return Self { address, version: Version::V2, raw };
        }
        let result = BootstrapResult::parse_from_bytes(&raw)
            .unwrap_or_else(|error| panic!("no answer ({error}): {}", output.transcript()));
        assert_eq!(result.protocol, "ttrpc", "{}", output.transcript());
        Self { address: result.address, version: number(result.version.into()), raw }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        Path::new(self.address.strip_prefix("unix://").unwrap_or(&self.address))
    }
}
