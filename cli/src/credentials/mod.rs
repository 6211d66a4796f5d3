//! What a registry is told of the user, from docker's `config.json`: kept there, or by a
//! credential helper. Passwords are never in an error, an argument or the environment (R23).

mod docker_credential;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hull_specs_api::v1::Credentials;
use serde_json::{Map, Value, json};

use self::docker_credential::{Helper, TOKEN_USER};

/// Docker Hub's name in the file.
pub(crate) const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The most bytes of the file.
const MAX_BYTES: u64 = 4 << 20;

/// What is known of a registry.
pub(crate) fn get(config_dir: &Path, registry: &str) -> Result<Option<Credentials>> {
    let config = read(config_dir)?;
    let key = key(registry);
    if let Some(helper) = helper(&config, registry)? {
        return helper.get(key);
    }
    let Some(auths) = config.get("auths").and_then(Value::as_object) else { return Ok(None) };
    let entry = auths.iter().find(|(name, _)| matches(name, registry)).map(|(_, entry)| entry);
    entry.map(decode).transpose().map(Option::flatten)
}

/// Keeps credentials; a warning if they can be read by whoever reads the file.
pub(crate) fn store(config_dir: &Path, registry: &str, of: &Credentials) -> Result<Option<String>> {
    let key = key(registry);
    if let Some(helper) = helper(&read(config_dir)?, registry)? {
        let token = !of.identity_token.is_empty();
        let (user, secret) = if token {
            (TOKEN_USER, &of.identity_token)
        } else {
            (of.username.as_str(), &of.password)
        };
        let input = json!({ "ServerURL": key, "Username": user, "Secret": secret });
        helper.call("store", &input.to_string())?;
        return Ok(None);
    }
    let mut entry = json!({
        "auth": BASE64_STANDARD.encode(format!("{}:{}", of.username, of.password)),
    });
    if !of.identity_token.is_empty() {
        entry["identitytoken"] = json!(of.identity_token);
    }
    update(config_dir, |auths| {
        auths.insert(key.to_owned(), entry);
        true
    })?;
    Ok(Some(format!(
        "WARNING! Your credentials are stored unencrypted in '{}'.",
        config_dir.join("config.json").display()
    )))
}

/// Forgets them.
pub(crate) fn erase(config_dir: &Path, registry: &str) -> Result<()> {
    let config = read(config_dir)?;
    let key = key(registry);
    if let Some(helper) = helper(&config, registry)? {
        return helper.call("erase", key).map(drop);
    }
    if config.is_empty() {
        return Ok(());
    }
    update(config_dir, |auths| {
        let before = auths.len();
        auths.retain(|name, _| !matches(name, registry));
        auths.len() < before
    })
}

/// Changes the entries of the file, if there is something to change. One at a time: another login
/// at this moment is not lost.
fn update(config_dir: &Path, change: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<()> {
    let about = || format!("write {}", config_dir.join("config.json").display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(config_dir).with_context(about)?;
    // The directory is the lock: the file is replaced, and one more would lie about.
    let lock = fs::File::open(config_dir).with_context(about)?;
    lock.lock().with_context(about)?;
    let mut config = read(config_dir)?;
    if change(auths(&mut config)?) {
        write(config_dir, &config)?;
    }
    Ok(())
}

fn key(registry: &str) -> &str {
    if registry == "docker.io" { HUB_KEY } else { registry }
}

/// Whether an entry's name, which may be an address of old, is of a registry. Whole hosts only:
/// credentials go to nobody else (R17).
fn matches(name: &str, registry: &str) -> bool {
    let host = name.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    host == registry || (registry == "docker.io" && host == "index.docker.io")
}

/// The helper for a registry: its own, or that of all.
fn helper(config: &Map<String, Value>, registry: &str) -> Result<Option<Helper>> {
    let own = config.get("credHelpers").and_then(Value::as_object).and_then(|helpers| {
        helpers.iter().find(|(name, _)| matches(name, registry)).map(|(_, helper)| helper)
    });
    let name = own.or_else(|| config.get("credsStore")).and_then(Value::as_str);
    // An empty name means the file.
    let name = name.filter(|name| !name.is_empty());
    name.map(|name| Helper::new(name, std::env::vars_os())).transpose()
}

fn auths(config: &mut Map<String, Value>) -> Result<&mut Map<String, Value>> {
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    auths.as_object_mut().context("auths of config.json is not an object")
}

/// What the file says; nothing if there is none.
pub(crate) fn read(config_dir: &Path) -> Result<Map<String, Value>> {
    let path = config_dir.join("config.json");
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES)
        .read_to_end(&mut text)
        .with_context(|| format!("read {}", path.display()))?;
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    // The error names the place in the file and none of its words.
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not a configuration", path.display()))
}

/// Replaces the file as a whole, for its owner only.
fn write(config_dir: &Path, config: &Map<String, Value>) -> Result<()> {
    let path = config_dir.join("config.json");
    // A link stays one: what it leads to is replaced.
    let path = fs::canonicalize(&path).unwrap_or(path);
    let beside = path.with_extension(format!("json.hull-{}", std::process::id()));
    let about = || format!("write {}", path.display());
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .with_context(about)?;
    let written = serde_json::to_vec_pretty(config)
        .map_err(Into::into)
        .and_then(|text| file.write_all(&text).and_then(|()| file.sync_all()).with_context(about))
        .and_then(|()| fs::rename(&beside, &path).with_context(about));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn decode(entry: &Value) -> Result<Option<Credentials>> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut of = Credentials {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
    };
    let auth = text("auth");
    if !auth.is_empty() {
        let pair = BASE64_STANDARD.decode(auth).ok().and_then(|pair| String::from_utf8(pair).ok());
        let pair = pair.context("an entry of config.json is not base64")?;
        let (username, password) =
            pair.split_once(':').context("an entry of config.json is not a name and a password")?;
        username.clone_into(&mut of.username);
        password.trim_end_matches('\0').clone_into(&mut of.password);
    }
    Ok((of != Credentials::default()).then_some(of))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_kept_is_found_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(
            &path,
            r#"{"detachKeys":"ctrl-a","auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#,
        )
        .unwrap();
        let of = |username: &str, password: &str| Credentials {
            username: username.into(),
            password: password.into(),
            ..Credentials::default()
        };
        assert_eq!(get(directory.path(), "docker.io").unwrap(), Some(of("u", "p")));
        store(directory.path(), "localhost:5000", &of("a", "b:c")).unwrap();
        assert_eq!(get(directory.path(), "localhost:5000").unwrap(), Some(of("a", "b:c")));
        assert_eq!(get(directory.path(), "localhost").unwrap(), None);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        erase(directory.path(), "docker.io").unwrap();
        assert_eq!(get(directory.path(), "docker.io").unwrap(), None);
        assert!(fs::read_to_string(&path).unwrap().contains("detachKeys"));
    }

    #[test]
    fn no_login_is_lost_to_another_at_the_same_time() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("new/.docker");
        let of = Credentials { username: "u".into(), password: "p".into(), ..Default::default() };
        std::thread::scope(|scope| {
            for number in 0..32 {
                let (config, of) = (&config, &of);
                scope.spawn(move || store(config, &format!("r{number}.test"), of).unwrap());
            }
        });
        let found = |number| get(&config, &format!("r{number}.test")).unwrap().is_some();
        assert_eq!((0..32).filter(|number| found(*number)).count(), 32);
        assert_eq!(fs::read_dir(&config).unwrap().count(), 1, "nothing lies about");
        assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_wrong_file_is_told_without_its_words() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.json"), r#"{"auths":{"a":{"auth":"secret!"}}}"#)
            .unwrap();
        let error = format!("{:#}", get(directory.path(), "a").unwrap_err());
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn the_registrys_own_helper_comes_before_that_of_all_and_no_file_after_one_that_fails() {
        let directory = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(directory.path().join("config.json"), text).unwrap();
        let asked =
            |registry: &str| get(directory.path(), registry).map_err(|error| format!("{error:#}"));
        write(
            r#"{"credsStore":"hull-test-all","credHelpers":{"a.b":"hull-test-own","c.d":""},
                "auths":{"a.b":{"auth":"dTpw"},"x.y":{"auth":"dTpw"},"c.d":{"auth":"dTpw"}}}"#,
        );
        assert!(asked("a.b").unwrap_err().contains("docker-credential-hull-test-own"));
        assert!(asked("x.y").unwrap_err().contains("docker-credential-hull-test-all"));
        assert_eq!(asked("c.d").unwrap().unwrap().username, "u");
        write(r#"{"credHelpers":{"docker.io":"hull-test-own"}}"#);
        assert!(asked("docker.io").unwrap_err().contains("docker-credential-hull-test-own"));
        write(r#"{"credsStore":"../../tmp/x"}"#);
        assert!(asked("a.b").unwrap_err().contains("is not the name"));
    }
}
