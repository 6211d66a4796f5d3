//! What the operator configured for one registry: `HOST/hosts.toml` as containerd documents it
//! (docs/hosts.md), or the certificates of Docker's `certs.d/HOST`.

use std::{
    collections::BTreeMap,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use http::{HeaderMap, HeaderName, HeaderValue};
use hull_manager_core::{Error, Result};
use reqwest::Url;
use serde::Deserialize;
use toml::Spanned;

/// The most bytes of a configuration file or a certificate bundle.
const MAX_BYTES: u64 = 4 << 20;

/// What a registry or mirror is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) pull: bool,
    pub(crate) resolve: bool,
    pub(crate) push: bool,
}

impl Capabilities {
    pub(crate) const ALL: Self = Self { pull: true, resolve: true, push: true };
    /// Docker's `registry-mirrors`.
    pub(crate) const MIRROR: Self = Self { pull: true, resolve: true, push: false };
}

/// Whom to trust as a host, and as whom to go there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Trust {
    /// Certificates, PEM, besides those of the system.
    pub(crate) authorities: Vec<u8>,
    /// A certificate chain and its key, PEM.
    pub(crate) client: Option<(Vec<u8>, ClientKey)>,
    pub(crate) skip_verify: bool,
    pub(crate) connect: Option<Duration>,
}

/// A private key, PEM; not printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct ClientKey(pub(crate) Vec<u8>);

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// One place to ask.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Ends with a slash, beneath which names of repositories begin.
    pub(crate) base: Url,
    pub(crate) can: Capabilities,
    pub(crate) trust: Trust,
    pub(crate) headers: HeaderMap,
}

/// The configuration of a registry: where to ask instead of it, in this order, and the registry
/// itself as far as something was said about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostConfig {
    pub(crate) hosts: Vec<Host>,
    pub(crate) server: Option<Host>,
    /// What is said about the registry wherever it is.
    pub(crate) trust: Trust,
    pub(crate) headers: HeaderMap,
    pub(crate) can: Option<Capabilities>,
}

/// Of the first of `dirs` that has a directory for `authority`; with `fallback` also `_default`.
pub(crate) fn load(
    dirs: &[PathBuf],
    authority: &str,
    fallback: bool,
) -> Result<Option<HostConfig>> {
    // containerd's form for file systems where a colon can't be in a name.
    let portable = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => format!("{host}_{port}_"),
        _ => authority.to_owned(),
    };
    for dir in dirs {
        let mut names = vec![portable.as_str(), authority];
        if fallback {
            names.push("_default");
        }
        for name in names {
            let dir = dir.join(name);
            if dir.is_dir() {
                return of_directory(&dir)
                    .map(Some)
                    .map_err(|cause| Error::invalid(dir.display()).because(cause));
            }
        }
    }
    Ok(None)
}

fn of_directory(dir: &Path) -> anyhow::Result<HostConfig> {
    let file = dir.join("hosts.toml");
    if file.try_exists()? {
        let text = String::from_utf8(read(&file)?).context("hosts.toml is not text")?;
        return parse(&text, &mut |path| read(&dir.join(path))).context("hosts.toml");
    }
    Ok(HostConfig { trust: docker_certificates(dir)?, ..HostConfig::default() })
}

/// Docker's form: every `*.crt` is an authority, `*.cert` with a `*.key` of the same name is ours.
fn docker_certificates(dir: &Path) -> anyhow::Result<Trust> {
    let mut trust = Trust::default();
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => trust.add_authority(&read(&path)?),
            Some("cert") => {
                let key = path.with_extension("key");
                let key = read(&key).with_context(|| format!("{} needs it", path.display()))?;
                trust.set_client(read(&path)?, key)?;
            }
            _ => {}
        }
    }
    Ok(trust)
}

impl Trust {
    fn add_authority(&mut self, pem: &[u8]) {
        self.authorities.extend_from_slice(pem);
        self.authorities.push(b'\n');
    }

    fn set_client(&mut self, chain: Vec<u8>, key: Vec<u8>) -> anyhow::Result<()> {
        if self.client.replace((chain, ClientKey(key))).is_some() {
            bail!("more than one client certificate; which of them is meant can't be told");
        }
        Ok(())
    }
}

/// Reads what decides whom we trust: only if nobody but root or ourselves can have written it.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("open {shown}"))?;
    let metadata = file.metadata().with_context(|| format!("stat {shown}"))?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        bail!("{shown} is not a file of at most {MAX_BYTES} bytes");
    }
    let ours = std::fs::metadata("/proc/self").context("stat /proc/self")?.uid();
    if (metadata.uid() != 0 && metadata.uid() != ours) || metadata.mode() & 0o022 != 0 {
        bail!("{shown} can be written by others, so it is not used");
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).with_context(|| format!("read {shown}"))?;
    Ok(bytes)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: BTreeMap<Spanned<String>, Table>,
    // What is not beneath a host is about the server. `flatten` and `deny_unknown_fields`
    // don't go together, so the fields are here once more.
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    header: Option<BTreeMap<String, OneOrMany>>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    header: Option<BTreeMap<String, OneOrMany>>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
        .iter()
        .map(String::as_str)
    }
}

/// A file with chain and key, several such, or pairs of files.
#[derive(Deserialize)]
#[serde(untagged)]
enum Client {
    Files(OneOrMany),
    Pairs(Vec<(String, String)>),
}

type ReadFile<'a> = dyn FnMut(&str) -> anyhow::Result<Vec<u8>> + 'a;

/// Reads hosts.toml; `read` gives the files it names.
fn parse(text: &str, read: &mut ReadFile<'_>) -> anyhow::Result<HostConfig> {
    let mut file: File = toml::from_str(text)?;
    let own = Table {
        capabilities: file.capabilities.take(),
        ca: file.ca.take(),
        client: file.client.take(),
        skip_verify: file.skip_verify,
        header: file.header.take(),
        override_path: file.override_path,
        dial_timeout: file.dial_timeout.take(),
    };
    let mut tables: Vec<_> = file.host.into_iter().collect();
    // Hosts are asked in the order in which they are written.
    tables.sort_by_key(|(name, _)| name.span().start);
    let hosts = tables
        .into_iter()
        .map(|(name, table)| {
            let name = name.into_inner();
            host(&name, &table, read).with_context(|| format!("host {name:?}"))
        })
        .collect::<anyhow::Result<_>>()?;
    let server = match file.server.as_deref() {
        Some(server) => {
            Some(host(server, &own, read).with_context(|| format!("server {server:?}"))?)
        }
        None => None,
    };
    let can = own.capabilities.as_deref().map(capabilities).transpose()?;
    Ok(HostConfig { hosts, server, trust: trust(&own, read)?, headers: headers(&own)?, can })
}

fn host(name: &str, table: &Table, read: &mut ReadFile<'_>) -> anyhow::Result<Host> {
    Ok(Host {
        base: base(name, table.override_path.unwrap_or(false))?,
        can: table.capabilities.as_deref().map_or(Ok(Capabilities::ALL), capabilities)?,
        trust: trust(table, read)?,
        headers: headers(table)?,
    })
}

/// The URL beneath which repositories are: `/v2` is added, unless the path is complete.
pub(crate) fn base(name: &str, override_path: bool) -> anyhow::Result<Url> {
    let text = if name.contains("://") { name.to_owned() } else { format!("https://{name}") };
    let mut url: Url = text.parse().map_err(|_| anyhow!("not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        bail!("not an http or https URL");
    }
    if !url.username().is_empty() || url.password().is_some() {
        bail!("a URL with a user is not taken: use a header");
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    if override_path || path.ends_with("/v2") {
        url.set_path(&format!("{path}/"));
    } else {
        url.set_path(&format!("{path}/v2/"));
    }
    Ok(url)
}

fn capabilities(words: &[String]) -> anyhow::Result<Capabilities> {
    let mut can = Capabilities { pull: false, resolve: false, push: false };
    for word in words {
        match word.to_ascii_lowercase().as_str() {
            "pull" => can.pull = true,
            "resolve" => can.resolve = true,
            "push" => can.push = true,
            _ => bail!("unknown capability {word:?} (pull, resolve, push)"),
        }
    }
    Ok(can)
}

fn trust(table: &Table, read: &mut ReadFile<'_>) -> anyhow::Result<Trust> {
    let mut trust = Trust { skip_verify: table.skip_verify.unwrap_or(false), ..Trust::default() };
    for path in table.ca.iter().flat_map(OneOrMany::iter) {
        trust.add_authority(&read(path)?);
    }
    match &table.client {
        Some(Client::Files(files)) => {
            for path in files.iter() {
                let pem = read(path)?;
                trust.set_client(pem.clone(), pem)?;
            }
        }
        Some(Client::Pairs(pairs)) => {
            for (chain, key) in pairs {
                let chain = read(chain)?;
                // An empty key: it is in the same file.
                let key = if key.is_empty() { chain.clone() } else { read(key)? };
                trust.set_client(chain, key)?;
            }
        }
        None => {}
    }
    trust.connect = table.dial_timeout.as_deref().map(duration).transpose()?;
    Ok(trust)
}

fn headers(table: &Table) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, values) in table.header.iter().flatten() {
        let key: HeaderName = name.parse().with_context(|| format!("header {name:?}"))?;
        for value in values.iter() {
            let mut value: HeaderValue =
                value.parse().with_context(|| format!("the value of header {name:?}"))?;
            value.set_sensitive(true);
            headers.append(key.clone(), value);
        }
    }
    Ok(headers)
}

/// Go's way to write a duration, as far as it makes sense here: `500ms`, `3s`, `1.5m`.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => bail!("dial_timeout {text:?} is not a duration (500ms, 3s, 1m)"),
    };
    let number: f64 = number.parse().with_context(|| format!("dial_timeout {text:?}"))?;
    Duration::try_from_secs_f64(number * factor).with_context(|| format!("dial_timeout {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_name(path: &str) -> anyhow::Result<Vec<u8>> {
        Ok(path.as_bytes().to_vec())
    }

    #[test]
    fn containerds_examples_are_read() {
        let config = parse(
            r#"
server = "https://docker.io"
ca = "/root.pem"

[host."https://zzz.example"]
  capabilities = ["pull", "resolve"]
  ca = ["a.pem", "b.pem"]
  client = [["c.cert", "c.key"]]
  dial_timeout = "1.5s"
  [host."https://zzz.example".header]
    x-custom = ["one", "two"]
    authorization = "Basic abc"

[host."http://aaa.example:5000/path"]
  skip_verify = true
  override_path = true
  client = "both.pem"
"#,
            &mut read_name,
        )
        .unwrap();
        let [first, second] = config.hosts.as_slice() else { panic!() };
        assert_eq!(first.base.as_str(), "https://zzz.example/v2/");
        assert_eq!(first.can, Capabilities::MIRROR);
        assert_eq!(first.trust.authorities, b"a.pem\nb.pem\n");
        assert_eq!(first.trust.client, Some((b"c.cert".into(), ClientKey(b"c.key".into()))));
        assert_eq!(first.trust.connect, Some(Duration::from_millis(1500)));
        assert_eq!(first.headers.get_all("x-custom").iter().count(), 2);
        assert!(!format!("{first:?}").contains("abc") && !format!("{first:?}").contains("\"one\""));
        assert_eq!(second.base.as_str(), "http://aaa.example:5000/path/");
        assert!(second.trust.skip_verify && second.can == Capabilities::ALL);
        assert_eq!(second.trust.client, Some((b"both.pem".into(), ClientKey(b"both.pem".into()))));
        let server = config.server.unwrap();
        assert_eq!(server.base.as_str(), "https://docker.io/v2/");
        assert_eq!(server.trust.authorities, b"/root.pem\n");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (text, word) in [
            ("serverr = 'x'", "serverr"),
            ("[host.'https://a']\ncapabilities = ['pulll']", "pulll"),
            ("[host.'https://a']\nskip_verfy = true", "skip_verfy"),
            ("[host.'ftp://a']", "http"),
            ("[host.'https://u:p@a']", "user"),
            ("[host.'https://a']\ndial_timeout = '3 fortnights'", "dial_timeout"),
            ("[host.'https://a']\nheader = {'a b' = 'x'}", "a b"),
            ("[host.'https://a']\nheader = {a = \"x\\ny\"}", "header"),
            ("[host.'https://a']\nclient = [['a', 'b'], ['c', 'd']]", "more than one"),
            ("server = 1", "server"),
        ] {
            let error = parse(text, &mut read_name).err().map(|error| format!("{error:#}"));
            assert!(error.as_ref().is_some_and(|error| error.contains(word)), "{text}: {error:?}");
        }
    }

    #[test]
    fn directories_are_found_and_files_that_others_can_write_are_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let dirs = [root.path().join("none"), root.path().to_owned()];
        let write = |name: &str, file: &str, text: &str| {
            std::fs::create_dir_all(root.path().join(name)).unwrap();
            std::fs::write(root.path().join(name).join(file), text).unwrap();
        };
        assert!(load(&dirs, "a.b:5000", true).unwrap().is_none());
        write("_default", "hosts.toml", "[host.'https://mirror']");
        assert_eq!(load(&dirs, "a.b:5000", true).unwrap().unwrap().hosts.len(), 1);
        assert!(load(&dirs, "a.b:5000", false).unwrap().is_none());
        write("a.b:5000", "ca.crt", "CA");
        write("a.b:5000", "x.cert", "CERT");
        assert!(load(&dirs, "a.b:5000", true).unwrap_err().to_string().contains("x.key"));
        write("a.b:5000", "x.key", "KEY");
        let trust = load(&dirs, "a.b:5000", true).unwrap().unwrap().trust;
        assert_eq!(trust.authorities, b"CA\n");
        assert_eq!(trust.client, Some((b"CERT".into(), ClientKey(b"KEY".into()))));
        write("a.b_5000_", "hosts.toml", "server = 'https://c'");
        let server = load(&dirs, "a.b:5000", true).unwrap().unwrap().server.unwrap();
        assert_eq!(server.base.as_str(), "https://c/v2/");
        let file = root.path().join("a.b_5000_/hosts.toml");
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(load(&dirs, "a.b:5000", true).unwrap_err().to_string().contains("by others"));
    }
}
