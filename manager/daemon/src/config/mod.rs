//! What hulld was told: flags and `daemon.json`, put together and checked before anything is
//! touched.
//!
//! Names are those that dockerd's users know. A key given in both places, an unknown key, and a
//! value that can't be are refused with the name of the culprit.

mod check;
mod flags;
pub(crate) mod network;
mod settings;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

pub(crate) use self::{flags::Flags, settings::Settings};

/// Where the file is looked for when no flag names one; it need not be there.
const DEFAULT_FILE: &str = "/etc/hull/daemon.json";

/// Where what ends with the host's uptime is, unless it is moved.
pub(crate) const DEFAULT_EXEC_ROOT: &str = "/run/hull";

/// What can be a container's log driver.
pub(crate) const LOG_DRIVERS: [&str; 5] = ["json-file", "local", "none", "syslog", "journald"];

/// What operators wrote about registries: ours, docker's, containerd's.
const REGISTRY_CONFIG_DIRS: [&str; 3] =
    ["/etc/hull/certs.d", "/etc/docker/certs.d", "/etc/containerd/certs.d"];

/// The most bytes of the file that are read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) file: Option<PathBuf>,
    pub(crate) listen: Vec<Listen>,
    pub(crate) group: Option<String>,
    pub(crate) tls: Option<Tls>,
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) pidfile: PathBuf,
    pub(crate) log_level: tracing::Level,
    pub(crate) log_json: bool,
    pub(crate) labels: Vec<String>,
    pub(crate) storage_driver: Option<String>,
    pub(crate) registry_mirrors: Vec<String>,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) registry_config_dirs: Vec<PathBuf>,
    pub(crate) default_runtime: String,
    /// Name and path; the default one is among them.
    pub(crate) runtimes: BTreeMap<String, PathBuf>,
    pub(crate) default_ulimits: Vec<Ulimit>,
    pub(crate) log_driver: String,
    pub(crate) log_opts: BTreeMap<String, String>,
    /// systemd makes containers' cgroups, as scopes.
    pub(crate) systemd_cgroups: bool,
    pub(crate) cgroup_parent: String,
    pub(crate) init: bool,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) metrics: Option<Listen>,
    pub(crate) shim: PathBuf,
    pub(crate) init_path: PathBuf,
    pub(crate) userns_auto_user: String,
    pub(crate) network: network::Network,
}

/// Where requests come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// A socket with a path.
    Unix(PathBuf),
    /// An address with a port; with mutual TLS only.
    Tcp(SocketAddr),
}

/// Certificates for connections over TCP. Clients always need one of `ca`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// A limit for containers that are given none of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ulimit {
    pub(crate) name: String,
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

impl Config {
    /// Reads the file that the flags name, and puts both together.
    ///
    /// # Errors
    /// One sentence with the name of what is wrong.
    pub(crate) fn load(flags: &Flags) -> Result<Self> {
        let (path, required) = match &flags.config_file {
            Some(path) => (path.as_path(), true),
            None => (Path::new(DEFAULT_FILE), false),
        };
        let given = flags.settings()?;
        let (file, settings) = match read(path, required)? {
            Some(text) => {
                let name = || format!("the configuration file {}", path.display());
                let from_file = Settings::parse(&text).with_context(name)?;
                (Some(path.to_owned()), given.join(from_file).with_context(name)?)
            }
            None => (None, given),
        };
        Self::new(settings, file)
    }

    fn new(given: Settings, file: Option<PathBuf>) -> Result<Self> {
        let network = network::Network::new(&given)?;
        let data_root =
            absolute("data-root", given.data_root.as_deref().unwrap_or("/var/lib/hull"))?;
        let exec_root =
            absolute("exec-root", given.exec_root.as_deref().unwrap_or(DEFAULT_EXEC_ROOT))?;
        let hosts = given
            .hosts
            .unwrap_or_else(|| vec![format!("unix://{}/hull.sock", exec_root.display())]);
        let listen = hosts.iter().map(|host| Listen::parse(host)).collect::<Result<Vec<_>>>()?;
        ensure!(!listen.is_empty(), "hosts: none is given");
        let wants_tls = given.tls.unwrap_or(false) || given.tlsverify.unwrap_or(false);
        let tls = match (given.tlscacert, given.tlscert, given.tlskey) {
            (Some(ca), Some(cert), Some(key)) => Some(Tls {
                ca: absolute("tlscacert", &ca)?,
                cert: absolute("tlscert", &cert)?,
                key: absolute("tlskey", &key)?,
            }),
            (None, None, None) if !wants_tls => None,
            _ => bail!(
                "tlscacert, tlscert and tlskey are needed together: clients must show a certificate"
            ),
        };
        if let Some(Listen::Tcp(address)) =
            listen.iter().find(|listen| matches!(listen, Listen::Tcp(_)))
        {
            ensure!(
                tls.is_some() && given.tlsverify.unwrap_or(false),
                "hosts: tcp://{address} needs --tlsverify, --tlscacert, --tlscert and --tlskey: \
                 whoever reaches it without is root on this host"
            );
        } else {
            ensure!(
                tls.is_none(),
                "tlscacert, tlscert, tlskey: there is no tcp:// among the hosts that they would serve"
            );
        }
        let level = match (given.debug.unwrap_or(false), given.log_level.as_deref()) {
            (true, _) | (false, Some("debug")) => tracing::Level::DEBUG,
            (false, None | Some("info")) => tracing::Level::INFO,
            (false, Some("warn")) => tracing::Level::WARN,
            (false, Some("error" | "fatal")) => tracing::Level::ERROR,
            (false, Some("trace")) => tracing::Level::TRACE,
            (false, Some(other)) => {
                bail!("log-level: {other:?} is not trace, debug, info, warn or error")
            }
        };
        let log_json = match given.log_format.as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => bail!("log-format: {other:?} is not text or json"),
        };
        let beside = |program: &str| beside_this_program(program);
        let mut runtimes = BTreeMap::from([
            ("hull".to_owned(), beside("hull-runtime")),
            ("runc".to_owned(), PathBuf::from("runc")),
            ("crun".to_owned(), PathBuf::from("crun")),
        ]);
        for (name, runtime) in given.runtimes.unwrap_or_default() {
            ensure!(is_word(&name), "runtimes: {name:?} is not a name");
            ensure!(
                runtime.runtime_args.is_empty(),
                "runtimes: {name}: runtimeArgs is not supported; name a script that adds them"
            );
            ensure!(!runtime.path.is_empty(), "runtimes: {name}: path is missing");
            runtimes.insert(name, PathBuf::from(runtime.path));
        }
        let default_runtime = given.default_runtime.unwrap_or_else(|| "hull".into());
        ensure!(
            runtimes.contains_key(&default_runtime),
            "default-runtime: {default_runtime:?} is not among the runtimes"
        );
        let log_driver = given.log_driver.unwrap_or_else(|| "json-file".into());
        ensure!(
            LOG_DRIVERS.contains(&log_driver.as_str()),
            "log-driver: {log_driver:?} is not json-file, local, none, syslog or journald"
        );
        let mut systemd_cgroups = false;
        for option in given.exec_opts.unwrap_or_default() {
            systemd_cgroups = match option.as_str() {
                "native.cgroupdriver=cgroupfs" => false,
                "native.cgroupdriver=systemd" => true,
                _ => bail!("exec-opts: {option:?} is not native.cgroupdriver=cgroupfs or =systemd"),
            };
        }
        let cgroup_parent = given.cgroup_parent.unwrap_or_default();
        ensure!(
            !systemd_cgroups || cgroup_parent.is_empty() || cgroup_parent.ends_with(".slice"),
            "cgroup-parent: {cgroup_parent:?} is not a slice of systemd's, such as web.slice"
        );
        if let Some(driver) = &given.storage_driver {
            ensure!(
                hull_manager_snapshots::DRIVERS.contains(&driver.as_str()),
                "storage-driver: {driver:?} is not overlayfs (also named overlay2) or vfs"
            );
        }
        let mirrors = given.registry_mirrors.unwrap_or_default();
        for mirror in &mirrors {
            ensure!(
                mirror.starts_with("https://") || mirror.starts_with("http://"),
                "registry-mirrors: {mirror:?} is not an http or https address"
            );
        }
        let labels = given.labels.unwrap_or_default();
        for label in &labels {
            ensure!(label.contains('='), "labels: {label:?} is not KEY=VALUE");
        }
        let mut default_ulimits = Vec::new();
        for (name, limit) in given.default_ulimits.unwrap_or_default() {
            let (soft, hard) = (limit.soft, limit.hard);
            ensure!(
                hard == -1 || (soft != -1 && soft <= hard),
                "default-ulimits: {name}: the soft limit {soft} is above the hard limit {hard}"
            );
            default_ulimits.push(Ulimit { name, soft, hard });
        }
        let metrics = given.metrics_addr.as_deref().map(metrics).transpose()?;
        let config = Self {
            file,
            listen,
            group: given.group,
            tls,
            pidfile: match given.pidfile {
                Some(path) => absolute("pidfile", &path)?,
                None => exec_root.join("hulld.pid"),
            },
            data_root,
            exec_root,
            log_level: level,
            log_json,
            labels,
            storage_driver: given.storage_driver,
            registry_mirrors: mirrors,
            insecure_registries: given.insecure_registries.unwrap_or_default(),
            registry_config_dirs: given.registry_config_dirs.map_or_else(
                || REGISTRY_CONFIG_DIRS.map(PathBuf::from).to_vec(),
                |dirs| dirs.into_iter().map(PathBuf::from).collect(),
            ),
            default_runtime,
            runtimes,
            default_ulimits,
            log_driver,
            log_opts: given.log_opts.unwrap_or_default(),
            systemd_cgroups,
            cgroup_parent,
            init: given.init.unwrap_or(false),
            shutdown_timeout: Duration::from_secs(given.shutdown_timeout.unwrap_or(15)),
            metrics,
            shim: given.shim_path.map_or_else(|| beside("containerd-shim-hull-v2"), PathBuf::from),
            userns_auto_user: given.userns_auto_user.unwrap_or_else(|| "containers".into()),
            init_path: given.init_path.map_or_else(|| beside("hull-init"), PathBuf::from),
            network,
        };
        check::check(&config)?;
        Ok(config)
    }
}

impl Listen {
    fn parse(host: &str) -> Result<Self> {
        if let Some(path) = host.strip_prefix("unix://") {
            return Ok(Self::Unix(absolute("hosts", path)?));
        }
        if let Some(address) = host.strip_prefix("tcp://") {
            let address = address.parse().with_context(|| {
                format!("hosts: {host:?} is not tcp://ADDRESS:PORT with a numeric address")
            })?;
            return Ok(Self::Tcp(address));
        }
        bail!("hosts: {host:?} is neither unix:///PATH nor tcp://ADDRESS:PORT")
    }
}

/// Without TLS the figures of this host are for this host only.
fn metrics(text: &str) -> Result<Listen> {
    if text.starts_with("unix://") {
        return Listen::parse(text).context("metrics-addr");
    }
    let address: SocketAddr = text
        .parse()
        .with_context(|| format!("metrics-addr: {text:?} is not ADDRESS:PORT or unix:///PATH"))?;
    ensure!(
        address.ip().is_loopback(),
        "metrics-addr: {address} is not an address of the loopback"
    );
    Ok(Listen::Tcp(address))
}

fn absolute(key: &str, path: &str) -> Result<PathBuf> {
    let clean = Path::new(path);
    ensure!(
        clean.is_absolute()
            && clean.components().all(|part| !matches!(part, std::path::Component::ParentDir)),
        "{key}: {path:?} is not an absolute path without \"..\""
    );
    Ok(clean.components().collect())
}

fn is_word(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !name.starts_with(['-', '.'])
}

/// The programs of one build stand in one directory; else they are looked for in `PATH`.
fn beside_this_program(name: &str) -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(|directory| directory.join(name)))
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(name))
}

fn read(path: &Path, required: bool) -> Result<Option<String>> {
    use std::io::Read as _;
    let what = || format!("read the configuration file {}", path.display());
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => return Ok(None),
        file => file.with_context(what)?,
    };
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).with_context(what)?;
    ensure!(text.len() as u64 <= MAX_FILE_BYTES, "{} is longer than 1 MiB", path.display());
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn load(args: &[&str], file: Option<&str>) -> Result<Config> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("daemon.json");
        let mut all = vec!["hulld", "--config-file", path.to_str().unwrap()];
        std::fs::write(&path, file.unwrap_or("{}")).unwrap();
        all.extend(args);
        Config::load(&Flags::try_parse_from(all).unwrap())
    }

    fn refusal(args: &[&str], file: Option<&str>) -> String {
        format!("{:#}", load(args, file).unwrap_err())
    }

    #[test]
    fn defaults() {
        let config = load(&[], None).unwrap();
        assert_eq!(config.listen, [Listen::Unix("/run/hull/hull.sock".into())]);
        assert_eq!(config.pidfile, Path::new("/run/hull/hulld.pid"));
        assert_eq!(config.default_runtime, "hull");
        assert_eq!(config.log_level, tracing::Level::INFO);
    }

    #[test]
    fn roots_move_what_is_in_them_and_aliases_are_the_same_flag() {
        let config = load(&["--root", "/a/", "--state", "/b"], None).unwrap();
        assert_eq!(
            (config.data_root.as_path(), config.exec_root.as_path()),
            (Path::new("/a"), Path::new("/b"))
        );
        assert_eq!(config.listen, [Listen::Unix("/b/hull.sock".into())]);
        let config = load(&["--data-root=/a", "--socket", "/c.sock", "-D"], None).unwrap();
        assert_eq!(config.listen, [Listen::Unix("/c.sock".into())]);
        assert_eq!(config.log_level, tracing::Level::DEBUG);
    }

    #[test]
    fn the_file_says_the_same_as_flags() {
        let file = r#"{"data-root":"/a","hosts":["unix:///x.sock"],"debug":true,"labels":["a=b"],
            "registry-mirrors":["https://m"],"insecure-registries":["10.0.0.0/8"],"init":true,
            "runtimes":{"r":{"path":"/usr/sbin/runc"}},"default-runtime":"r","log-driver":"local",
            "log-opts":{"max-size":"1m"},"shutdown-timeout":3,"bip":"10.1.0.1/24","icc":false,
            "default-address-pools":[{"base":"10.9.0.0/16","size":24}],"dns":["1.1.1.1"],"mtu":1400,
            "exec-opts":["native.cgroupdriver=systemd"],"cgroup-parent":"web.slice",
            "default-ulimits":{"nofile":{"Name":"nofile","Hard":64000,"Soft":100}}}"#;
        let from_file = load(&[], Some(file)).unwrap();
        let from_flags = load(
            &[
                "--data-root=/a",
                "-H",
                "unix:///x.sock",
                "--debug",
                "--label",
                "a=b",
                "--registry-mirror=https://m",
                "--insecure-registry=10.0.0.0/8",
                "--init",
                "--add-runtime=r=/usr/sbin/runc",
                "--default-runtime=r",
                "--log-driver=local",
                "--log-opt=max-size=1m",
                "--shutdown-timeout=3",
                "--bip=10.1.0.1/24",
                "--icc=false",
                "--default-address-pool=base=10.9.0.0/16,size=24",
                "--dns=1.1.1.1",
                "--mtu=1400",
                "--exec-opt=native.cgroupdriver=systemd",
                "--cgroup-parent=web.slice",
                "--default-ulimit=nofile=100:64000",
            ],
            None,
        )
        .unwrap();
        assert_eq!(Config { file: None, ..from_file }, Config { file: None, ..from_flags });
    }

    #[test]
    fn the_culprit_is_named() {
        for (args, file, words) in [
            (&["--data-root=/a"][..], r#"{"data-root":"/b"}"#, &["both", "data-root"][..]),
            (&["-H", "unix:///a"], r#"{"hosts":["unix:///b"]}"#, &["both", "hosts"]),
            (&["--label=a=b"], r#"{"labels":[]}"#, &["both", "labels"]),
            (&[], r#"{"bride":"x"}"#, &["unknown field", "bride"]),
            (&[], r#"{"debug":"x"}"#, &["boolean"]),
            (&[], "{", &["daemon.json"]),
            (&[], r#"{"debug":true}x"#, &["trailing"]),
            (&["-H", "ftp://x"], "{}", &["hosts", "ftp://x"]),
            (&["-H", "tcp://127.0.0.1:2375"], "{}", &["tlsverify"]),
            (&["--tlsverify"], "{}", &["tlscacert"]),
            (
                &["--tlscacert=/a", "--tlscert=/b", "--tlskey=/c"],
                r#"{"hosts":["unix:///x.sock"]}"#,
                &["tlscert", "tcp://"],
            ),
            (&["--data-root=a"], "{}", &["data-root", "absolute"]),
            (&["--default-runtime=x"], "{}", &["default-runtime", "x"]),
            (&["--log-level=loud"], "{}", &["log-level", "loud"]),
            (&["--log-driver=gelf"], "{}", &["log-driver", "gelf"]),
            (&["--default-ulimit=nofile=5:4"], "{}", &["nofile", "soft"]),
            (&["--default-ulimit=nofile"], "{}", &["nofile"]),
            (&["--storage-driver=zfs"], "{}", &["storage-driver", "zfs"]),
            (&["--metrics-addr=0.0.0.0:1"], "{}", &["metrics-addr", "loopback"]),
            (&["--add-runtime=x"], "{}", &["add-runtime", "x"]),
            (&[], r#"{"runtimes":{"x":{"path":"/r","runtimeArgs":["-a"]}}}"#, &["runtimeArgs"]),
            (&["--label=x"], "{}", &["labels", "x"]),
            (&["--exec-opt=native.cgroupdriver=x"], "{}", &["exec-opts", "native.cgroupdriver=x"]),
            (
                &["--exec-opt=native.cgroupdriver=systemd", "--cgroup-parent=/web"],
                "{}",
                &["cgroup-parent", "/web", "slice"],
            ),
            (&["--log-opt=max-size=zz"], "{}", &["log-opts", "max-size", "zz"]),
            (&[], r#"{"log-opts":{"foo":"bar"}}"#, &["log-opts", "unknown log opt 'foo'"]),
            (&["--log-driver=none", "--log-opt=tag=x"], "{}", &["log-opts", "tag", "none"]),
            (&["--log-opt=tag={{.ID"], "{}", &["log-opts"]),
            (&["--log-opt=env-regex=("], "{}", &["log-opts"]),
            (&["--log-driver=syslog", "--log-opt=syslog-address=x://"], "{}", &["log-opts"]),
            (&["--default-ulimit=foo=1"], "{}", &["default-ulimits", "foo"]),
            (&["--cgroup-parent=/a/../../b"], "{}", &["cgroup-parent", "leaves"]),
            (&["--insecure-registry=http://a"], "{}", &["insecure-registries", "http://a"]),
            (&["--group=no-such-group"], "{}", &["group", "no-such-group"]),
        ] {
            let refusal = refusal(args, Some(file));
            assert!(words.iter().all(|word| refusal.contains(word)), "{args:?} {file}: {refusal}");
        }
        let missing = Flags::try_parse_from(["hulld", "--config-file", "/nonexistent"]).unwrap();
        assert!(Config::load(&missing).is_err());
    }
}
