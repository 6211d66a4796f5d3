//! hull-cni: the manager's network drivers as a CNI plugin (specification 1.1), for podman,
//! containerd and whoever else executes plugins. It needs no manager.
//!
//! Only the protocol is here; what is done is in `hull_manager_networks::plugin`.
#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, Read as _, Write as _},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
};

use hull_manager_core::{Error, ErrorKind, Result};
use hull_manager_networks::plugin::{self, Call};
use serde_json::{Map, Value, json};

/// Versions of the specification, oldest first.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A longer request is refused.
const MAX_REQUEST: u64 = 1024 * 1024;

/// The specification's error codes (section 5).
mod code {
    pub(crate) const VERSION: u32 = 1;
    pub(crate) const UNKNOWN_CONTAINER: u32 = 3;
    pub(crate) const ENVIRONMENT: u32 = 4;
    pub(crate) const DECODE: u32 = 6;
    pub(crate) const CONFIGURATION: u32 = 7;
    pub(crate) const LATER: u32 = 11;
    pub(crate) const UNAVAILABLE: u32 = 50;
    pub(crate) const OTHER: u32 = 100;
}

/// What is said on standard output in place of a result.
struct Failure {
    code: u32,
    message: String,
}

impl Failure {
    fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

fn main() -> ExitCode {
    let mut version = VERSIONS[VERSIONS.len() - 1].to_owned();
    let (answer, exit) = match run(&mut version) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(answer)) => (answer, ExitCode::SUCCESS),
        Err(failure) => {
            let answer =
                json!({"cniVersion": version, "code": failure.code, "msg": failure.message});
            (answer, ExitCode::FAILURE)
        }
    };
    match writeln!(io::stdout(), "{answer}") {
        Ok(()) => exit,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(version: &mut String) -> Result<Option<Value>, Failure> {
    let command = variable("CNI_COMMAND")?;
    let request = request()?;
    if let Some(named) = request.get("cniVersion").and_then(Value::as_str) {
        named.clone_into(version);
    }
    if command == "VERSION" {
        return Ok(Some(json!({"cniVersion": version, "supportedVersions": VERSIONS})));
    }
    let Some(age) = VERSIONS.iter().position(|spoken| spoken == version) else {
        let spoken = VERSIONS.join(", ");
        return Err(Failure::new(
            code::VERSION,
            format!("CNI version {version:?} is not one of {spoken}"),
        ));
    };
    let mut call = Call { request, addresses: addresses()?, ..Call::default() };
    if matches!(&*command, "ADD" | "DEL" | "CHECK") {
        call.container = variable("CNI_CONTAINERID")?;
        call.interface = variable("CNI_IFNAME")?;
        call.netns = env::var_os("CNI_NETNS").filter(|path| !path.is_empty()).map(PathBuf::from);
    }
    match &*command {
        "ADD" if call.request.contains_key("prevResult") => Err(Failure::new(
            code::CONFIGURATION,
            "hull-cni makes interfaces, so it is the first plugin of a list",
        )),
        "ADD" => {
            plugin::add(&call).map(|result| Some(of_version(result, version, age))).map_err(other)
        }
        "DEL" => plugin::del(&call).map(|()| None).map_err(other),
        "CHECK" => plugin::check(&call).map(|()| None).map_err(other),
        "GC" => plugin::gc(&call).map(|()| None).map_err(other),
        "STATUS" => plugin::status(&call)
            .map(|()| None)
            .map_err(|error| Failure::new(code::UNAVAILABLE, error.to_string())),
        _ => Err(Failure::new(code::ENVIRONMENT, format!("CNI_COMMAND {command:?} is unknown"))),
    }
}

fn variable(name: &str) -> Result<String, Failure> {
    match env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => Err(Failure::new(code::ENVIRONMENT, format!("{name} is missing"))),
    }
}

fn request() -> Result<Map<String, Value>, Failure> {
    let mut text = Vec::new();
    let read = io::stdin().take(MAX_REQUEST + 1).read_to_end(&mut text);
    if read.is_err() || text.len() as u64 > MAX_REQUEST {
        return Err(Failure::new(
            code::DECODE,
            format!("no request of at most {MAX_REQUEST} bytes"),
        ));
    }
    serde_json::from_slice(&text)
        .map_err(|error| Failure::new(code::DECODE, format!("the request: {error}")))
}

/// The addresses that `CNI_ARGS` asks for (`IP=10.1.0.9,fd00::9`); other arguments are others'.
fn addresses() -> Result<Vec<IpAddr>, Failure> {
    let args = env::var("CNI_ARGS").unwrap_or_default();
    let asked =
        args.split(';').filter_map(|arg| arg.strip_prefix("IP=")).flat_map(|ips| ips.split(','));
    asked
        .filter(|ip| !ip.is_empty())
        .map(|ip| {
            let ip = ip.split_once('/').map_or(ip, |(ip, _)| ip);
            ip.parse().map_err(|_| Failure::new(code::ENVIRONMENT, format!("CNI_ARGS: IP={ip:?}")))
        })
        .collect()
}

/// A result in the form of an older version: before 1.0.0 an address says its family.
fn of_version(mut result: Value, version: &str, age: usize) -> Value {
    result["cniVersion"] = version.into();
    if age < 3
        && let Some(ips) = result["ips"].as_array_mut()
    {
        for ip in ips {
            let is_ipv6 = ip["address"].as_str().is_some_and(|address| address.contains(':'));
            ip["version"] = if is_ipv6 { "6" } else { "4" }.into();
        }
    }
    result
}

fn other(error: Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::InvalidArgument | ErrorKind::Unimplemented => code::CONFIGURATION,
        ErrorKind::NotFound => code::UNKNOWN_CONTAINER,
        ErrorKind::ResourceExhausted | ErrorKind::Unavailable => code::LATER,
        _ => code::OTHER,
    };
    Failure::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_1_0_an_address_says_its_family() {
        let result = || json!({"ips": [{"address": "10.0.0.2/24"}, {"address": "fd00::2/64"}]});
        let old = of_version(result(), "0.4.0", 2);
        assert_eq!(
            (&old["ips"][0]["version"], &old["ips"][1]["version"]),
            (&json!("4"), &json!("6"))
        );
        assert_eq!(old["cniVersion"], "0.4.0");
        assert!(of_version(result(), "1.0.0", 3)["ips"][0].get("version").is_none());
    }
}
