//! Network configuration lists (specification 1.1, section 1): reading and checking them. Pure
//! but for the reading.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use hull_manager_core::{Error, Result, error::IoContext as _};
use serde_json::{Map, Value};

use crate::version::Version;

/// A longer configuration is refused.
const MAX_BYTES: u64 = 1024 * 1024;
/// More plugins are refused.
const MAX_PLUGINS: usize = 64;
/// The longest name of a network, a container or a plugin: a component of a path.
const MAX_NAME: usize = 128;

/// A network: plugins that are executed one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The versions that its configuration allows and that we speak, oldest first, at least one.
    pub versions: Vec<Version>,
    /// CHECK must not be called.
    pub disable_check: bool,
    /// GC must not be called.
    pub disable_gc: bool,
    /// Its plugins, at least one, in the order of ADD.
    pub plugins: Vec<Plugin>,
}

/// A plugin's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// The base name of its executable (R13).
    pub kind: String,
    /// The whole object, as it stands in the file.
    pub fields: Map<String, Value>,
}

impl Plugin {
    /// The capability arguments that it takes.
    pub fn capabilities(&self) -> impl Iterator<Item = &str> {
        let capabilities = self.fields.get("capabilities").and_then(Value::as_object);
        capabilities
            .into_iter()
            .flatten()
            .filter(|(_, wanted)| wanted.as_bool() == Some(true))
            .map(|(name, _)| name.as_str())
    }
}

impl Network {
    /// Reads a list (`plugins`), or a single plugin's configuration (`type`), which is a list of
    /// one.
    ///
    /// # Errors
    /// One sentence on what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        object(bytes).and_then(Self::of)
    }

    /// Reads the file of a list. Unless it has `loadOnlyInlinedPlugins`, the plugins in
    /// `NAME/*.conf` beside it belong to it too, in their names' order.
    ///
    /// # Errors
    /// If it can't be read, or as [`Network::parse`]; the file is named.
    pub fn load(path: &Path) -> Result<Self> {
        let network = read_list(path).and_then(Self::of);
        network.map_err(|error| error.context(path.display()))
    }

    fn of(mut fields: Map<String, Value>) -> Result<Self> {
        let name = name(&fields)?.to_owned();
        let versions = versions(&fields)?;
        let disable_check = switch(&fields, "disableCheck")?;
        let disable_gc = switch(&fields, "disableGC")?;
        let plugins = match fields.remove("plugins") {
            Some(Value::Array(plugins)) => plugins,
            Some(_) => return Err(Error::invalid("plugins is not a list")),
            None if fields.contains_key("type") => vec![Value::Object(fields)],
            None => Vec::new(),
        };
        if plugins.is_empty() {
            return Err(Error::invalid(format!("network {name} has no plugins")));
        }
        if plugins.len() > MAX_PLUGINS {
            return Err(Error::invalid(format!("network {name} has over {MAX_PLUGINS} plugins")));
        }
        let plugins = plugins
            .into_iter()
            .enumerate()
            .map(|(index, plugin)| {
                plugin_of(plugin).map_err(|error| error.context(format!("plugins[{index}]")))
            })
            .collect::<Result<_>>()?;
        Ok(Self { name, versions, disable_check, disable_gc, plugins })
    }

    /// Any plugin's capability arguments.
    #[must_use]
    pub fn has_capability(&self, name: &str) -> bool {
        self.plugins.iter().any(|plugin| plugin.capabilities().any(|other| other == name))
    }
}

/// Reads the file of a list, with the plugins in `NAME/*.conf` beside it behind its own, unless it
/// has `loadOnlyInlinedPlugins`.
///
/// # Errors
/// If a file can't be read, or is none.
pub fn read_list(path: &Path) -> Result<Map<String, Value>> {
    let mut fields = object(&read(path)?)?;
    if switch(&fields, "loadOnlyInlinedPlugins")? {
        return Ok(fields);
    }
    let Some(directory) = path.parent() else { return Ok(fields) };
    let mut others = Vec::new();
    for file in files(&directory.join(name(&fields)?), &["conf"])? {
        let other = read(&file).and_then(|bytes| object(&bytes));
        others.push(Value::Object(other.map_err(|error| error.context(file.display()))?));
    }
    if others.is_empty() {
        return Ok(fields);
    }
    // A single configuration is a list of one.
    let mut plugins = match fields.get("plugins") {
        Some(Value::Array(plugins)) => plugins.clone(),
        None if fields.contains_key("type") => vec![Value::Object(fields.clone())],
        None => Vec::new(),
        // Whoever reads it says so.
        Some(_) => return Ok(fields),
    };
    plugins.extend(others);
    fields.insert("plugins".into(), Value::Array(plugins));
    Ok(fields)
}

/// The configuration files of a directory (`.conflist`, `.conf`, `.json`), in their names' order,
/// each with its network or what is wrong with it. A directory that is not there has none.
///
/// # Errors
/// If the directory can't be read.
pub fn load_directory(directory: &Path) -> Result<Vec<(PathBuf, Result<Network>)>> {
    let files = files(directory, &["conflist", "conf", "json"])?;
    Ok(files
        .into_iter()
        .map(|path| {
            let network = Network::load(&path);
            (path, network)
        })
        .collect())
}

fn files(directory: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.about(directory.display())?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.about(directory.display())?.path();
        let wanted = path.extension().is_some_and(|end| extensions.iter().any(|e| end == *e));
        if wanted && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .about(path.display())?;
    Ok(bytes)
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::invalid(format!("a configuration of over {MAX_BYTES} bytes")));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid("not a network configuration").because(error))
}

fn name(fields: &Map<String, Value>) -> Result<&str> {
    match fields.get("name") {
        Some(Value::String(name)) => {
            check_name("network", name)?;
            Ok(name)
        }
        Some(_) => Err(Error::invalid("name is not a text")),
        None => Err(Error::invalid("the network has no name")),
    }
}

/// `cniVersion` and `cniVersions` together (section "version considerations").
fn versions(fields: &Map<String, Value>) -> Result<Vec<Version>> {
    let mut named = Vec::new();
    match fields.get("cniVersion") {
        None => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(Value::String(text)) => named.push(text.parse()?),
        Some(_) => return Err(Error::invalid("cniVersion is not a text")),
    }
    match fields.get("cniVersions") {
        None => {}
        Some(Value::Array(texts)) => {
            for text in texts {
                let text = text.as_str();
                let text = text.ok_or_else(|| Error::invalid("cniVersions holds no texts"))?;
                named.push(text.parse()?);
            }
        }
        Some(_) => return Err(Error::invalid("cniVersions is not a list")),
    }
    if named.is_empty() {
        named.push(Version::OLDEST);
    }
    let mut versions: Vec<Version> = named.iter().copied().filter(|v| v.spoken()).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.is_empty() {
        return Err(Error::invalid(format!(
            "CNI version {} is not one of {}",
            crate::version::list(&named),
            crate::version::list(&Version::SPOKEN)
        )));
    }
    Ok(versions)
}

/// A switch; as libcni does, also one that is a text.
fn switch(fields: &Map<String, Value>, key: &str) -> Result<bool> {
    match fields.get(key) {
        None => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(Error::invalid(format!("{key} is neither true nor false"))),
    }
}

fn plugin_of(value: Value) -> Result<Plugin> {
    let Value::Object(fields) = value else { return Err(Error::invalid("not an object")) };
    let kind = match fields.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(_) => return Err(Error::invalid("type is not a text")),
        None => return Err(Error::invalid("the plugin has no type")),
    };
    check_file_name("plugin type", &kind)?;
    // The inner plugin is found and executed by the outer one, by the same rule.
    if let Some(ipam) = fields.get("ipam").and_then(|ipam| ipam.get("type"))
        && let Some(ipam) = ipam.as_str()
        && !ipam.is_empty()
    {
        check_file_name("ipam type", ipam)?;
    }
    Ok(Plugin { kind, fields })
}

/// The alphabet of networks and containers: a component of a path that is no option.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let word = |b: u8| b.is_ascii_alphanumeric();
    let valid = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().next().is_some_and(word)
        && name.bytes().all(|b| word(b) || matches!(b, b'_' | b'.' | b'-'));
    if valid { Ok(()) } else { Err(Error::invalid(format!("{} is no {what} name", shown(name)))) }
}

/// A file's name without a directory (R13, CVE-2021-20206).
fn check_file_name(what: &str, name: &str) -> Result<()> {
    let valid = (1..=MAX_NAME).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.bytes().any(|b| matches!(b, b'/' | b'\\' | b':') || b.is_ascii_control());
    if valid {
        Ok(())
    } else {
        Err(Error::invalid(format!("{what} {} is no file name", shown(name))))
    }
}

/// The kernel's rule for interfaces (`dev_valid_name`).
pub(crate) fn check_interface(name: &str) -> Result<()> {
    let valid = (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':'));
    if valid {
        Ok(())
    } else {
        Err(Error::invalid(format!("{} is no interface name", shown(name))))
    }
}

/// Foreign text in a sentence: short, without control characters (R26).
pub(crate) fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions_of(json: &str) -> String {
        match Network::parse(json.as_bytes()) {
            Ok(network) => crate::version::list(&network.versions),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_list_is_read() {
        let network = Network::parse(
            br#"{"cniVersion": "1.1.0", "cniVersions": ["0.4.0", "1.0.0", "9.0.0"], "name": "dbnet",
                "disableCheck": "True", "disableGC": true, "plugins": [
                {"type": "bridge", "keyA": ["x"], "ipam": {"type": "host-local"}},
                {"type": "portmap", "capabilities": {"portMappings": true, "other": false}}]}"#,
        )
        .unwrap();
        assert_eq!(crate::version::list(&network.versions), "0.4.0, 1.0.0, 1.1.0");
        assert_eq!((network.name.as_str(), network.plugins.len()), ("dbnet", 2));
        assert!(network.disable_check && network.disable_gc);
        assert_eq!(network.plugins[0].fields["keyA"][0], "x");
        assert_eq!(network.plugins[1].capabilities().collect::<Vec<_>>(), ["portMappings"]);
        assert!(network.has_capability("portMappings") && !network.has_capability("other"));
    }

    #[test]
    fn a_single_configuration_is_a_list_of_one() {
        let network = Network::parse(br#"{"name": "lo", "type": "loopback"}"#).unwrap();
        assert_eq!((network.plugins[0].kind.as_str(), network.plugins.len()), ("loopback", 1));
        assert_eq!(versions_of(r#"{"name": "lo", "type": "loopback"}"#), "0.1.0");
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_a_sentence() {
        for (json, sentence) in [
            ("", "not a network configuration"),
            ("[]", "not a network configuration"),
            (r#"{"plugins": [{"type": "a"}]}"#, "the network has no name"),
            (r#"{"name": 1, "type": "a"}"#, "name is not a text"),
            (r#"{"name": "../a", "type": "a"}"#, "\"../a\" is no network name"),
            (r#"{"name": "-a", "type": "a"}"#, "\"-a\" is no network name"),
            (r#"{"name": "a\nb", "type": "a"}"#, "\"a\\nb\" is no network name"),
            (r#"{"name": "a"}"#, "network a has no plugins"),
            (r#"{"name": "a", "plugins": []}"#, "network a has no plugins"),
            (r#"{"name": "a", "plugins": {}}"#, "plugins is not a list"),
            (r#"{"name": "a", "plugins": [1]}"#, "plugins[0]: not an object"),
            (r#"{"name": "a", "plugins": [{}]}"#, "plugins[0]: the plugin has no type"),
            (
                r#"{"name": "a", "plugins": [{"type": "a"}, {"type": "../b"}]}"#,
                "plugins[1]: plugin type \"../b\" is no file name",
            ),
            (r#"{"name": "a", "type": ".."}"#, "plugins[0]: plugin type \"..\" is no file name"),
            (
                r#"{"name": "a", "type": "b", "ipam": {"type": "/bin/sh"}}"#,
                "plugins[0]: ipam type \"/bin/sh\" is no file name",
            ),
            (
                r#"{"name": "a", "type": "b", "disableGC": 1}"#,
                "disableGC is neither true nor false",
            ),
            (r#"{"name": "a", "type": "b", "cniVersion": "x"}"#, "\"x\" is not a CNI version"),
            (
                r#"{"name": "a", "type": "b", "cniVersion": "2.0.0"}"#,
                "CNI version 2.0.0 is not one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
            ),
        ] {
            let error = Network::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(sentence), "{json}: {error}");
        }
        let many = format!(
            r#"{{"name":"a","plugins":[{}{{"type":"a"}}]}}"#,
            "{\"type\":\"a\"},".repeat(64)
        );
        assert!(Network::parse(many.as_bytes()).is_err());
        let deep =
            format!(r#"{{"name":"a","type":"b","x":{}1{}}}"#, "[".repeat(9999), "]".repeat(9999));
        assert!(Network::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_directory_gives_each_network_or_what_is_wrong_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("20-b.conf", r#"{"name": "b", "type": "ptp", "cniVersion": "1.0.0"}"#);
        write("10-a.conflist", r#"{"name": "a", "plugins": [{"type": "bridge"}]}"#);
        write(
            "30-c.conflist",
            r#"{"name": "c", "loadOnlyInlinedPlugins": true, "plugins": [{"type": "x"}]}"#,
        );
        write("40-d.conflist", "{");
        write("README", "no");
        write("a/2.conf", r#"{"type": "tuning"}"#);
        write("a/1.conf", r#"{"type": "portmap"}"#);
        write("c/1.conf", r#"{"type": "portmap"}"#);
        write("50-e.conflist", r#"{"name": "e", "cniVersions": ["1.0.0"]}"#);
        write("e/1.conf", r#"{"type": "ptp"}"#);
        write("60-f.conflist", r#"{"name": "f", "plugins": {}}"#);
        write("f/1.conf", r#"{"type": "ptp"}"#);
        let networks = load_directory(directory.path()).unwrap();
        let shown: Vec<String> = networks
            .iter()
            .map(|(path, network)| match network {
                Ok(network) => {
                    let kinds: Vec<&str> =
                        network.plugins.iter().map(|p| p.kind.as_str()).collect();
                    format!("{} {}", network.name, kinds.join("+"))
                }
                Err(error) => format!("{}", error.to_string().starts_with(path.to_str().unwrap())),
            })
            .collect();
        assert_eq!(shown, ["a bridge+portmap+tuning", "b ptp", "c x", "true", "e ptp", "true"]);
        assert!(load_directory(&directory.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn interfaces_are_named_by_the_kernels_rule() {
        for (name, valid) in [
            ("eth0", true),
            ("a", true),
            ("eth0.5@x", true),
            ("", false),
            ("..", false),
            ("a/b", false),
            ("a:b", false),
            ("a b", false),
            ("sixteen-letters-", false),
        ] {
            assert_eq!(check_interface(name).is_ok(), valid, "{name}");
        }
    }
}
