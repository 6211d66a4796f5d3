//! What a registry is told of the user, from docker's `config.json`: kept there, or by a
//! credential helper. Passwords are never in an error, an argument or the environment (R23).

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hull_specs_api::v1::Credentials;
use serde_json::{Map, Value, json};

/// Docker Hub's name in the file.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The most bytes of the file, and of a helper's answer.
const MAX_BYTES: u64 = 4 << 20;
/// The name with which a helper says that it has a token and no password.
const TOKEN_USER: &str = "<token>";

/// What is known of a registry.
pub(crate) fn get(config_dir: &Path, registry: &str) -> Result<Option<Credentials>> {
    let config = read(config_dir)?;
    let key = key(registry);
    if let Some(helper) = helper(&config, key) {
        return from_helper(&helper, key);
    }
    let Some(auths) = config.get("auths").and_then(Value::as_object) else { return Ok(None) };
    let entry = auths.iter().find(|(name, _)| matches(name, registry)).map(|(_, entry)| entry);
    entry.map(decode).transpose().map(Option::flatten)
}

/// Keeps credentials; a warning if they can be read by whoever reads the file.
pub(crate) fn store(config_dir: &Path, registry: &str, of: &Credentials) -> Result<Option<String>> {
    let mut config = read(config_dir)?;
    let key = key(registry);
    if let Some(helper) = helper(&config, key) {
        let token = !of.identity_token.is_empty();
        let (user, secret) = if token {
            (TOKEN_USER, &of.identity_token)
        } else {
            (of.username.as_str(), &of.password)
        };
        let input = json!({ "ServerURL": key, "Username": user, "Secret": secret });
        call(&helper, "store", &input.to_string())?;
        return Ok(None);
    }
    let mut entry = json!({
        "auth": BASE64_STANDARD.encode(format!("{}:{}", of.username, of.password)),
    });
    if !of.identity_token.is_empty() {
        entry["identitytoken"] = json!(of.identity_token);
    }
    auths(&mut config)?.insert(key.to_owned(), entry);
    write(config_dir, &config)?;
    Ok(Some(format!(
        "WARNING! Your credentials are stored unencrypted in '{}'.",
        config_dir.join("config.json").display()
    )))
}

/// Forgets them.
pub(crate) fn erase(config_dir: &Path, registry: &str) -> Result<()> {
    let mut config = read(config_dir)?;
    let key = key(registry);
    if let Some(helper) = helper(&config, key) {
        return call(&helper, "erase", key).map(drop);
    }
    let auths = auths(&mut config)?;
    let before = auths.len();
    auths.retain(|name, _| !matches(name, registry));
    if auths.len() < before { write(config_dir, &config) } else { Ok(()) }
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

fn helper(config: &Map<String, Value>, key: &str) -> Option<String> {
    let own = config.get("credHelpers").and_then(|helpers| helpers.get(key));
    own.or_else(|| config.get("credsStore"))
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

fn auths(config: &mut Map<String, Value>) -> Result<&mut Map<String, Value>> {
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    auths.as_object_mut().context("auths of config.json is not an object")
}

fn read(config_dir: &Path) -> Result<Map<String, Value>> {
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
    fs::create_dir_all(config_dir).with_context(about)?;
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

fn from_helper(helper: &str, key: &str) -> Result<Option<Credentials>> {
    let Some(answer) = call(helper, "get", key)? else { return Ok(None) };
    let answer: Value = serde_json::from_str(&answer).map_err(|_| {
        anyhow::anyhow!("docker-credential-{helper} did not answer with credentials")
    })?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (username, secret) = (text("Username"), text("Secret"));
    Ok(Some(if username == TOKEN_USER {
        Credentials { identity_token: secret, ..Credentials::default() }
    } else {
        Credentials { username, password: secret, ..Credentials::default() }
    }))
}

/// What a helper answers; none if it knows nothing of the server.
fn call(helper: &str, verb: &str, input: &str) -> Result<Option<String>> {
    let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !helper.chars().all(word) {
        bail!("{helper:?} is not the name of a credential helper");
    }
    let program = format!("docker-credential-{helper}");
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read says why by its exit.
        let _ = stdin.write_all(input.as_bytes());
    }
    let mut answer = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(MAX_BYTES)
            .read_to_string(&mut answer)
            .with_context(|| format!("read {program}"))?;
    }
    let status = child.wait().with_context(|| format!("wait for {program}"))?;
    if status.success() {
        return Ok(Some(answer));
    }
    if answer.contains("credentials not found") {
        return Ok(None);
    }
    bail!("{program} {verb} ended with {status}: {}", answer.trim())
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
    fn a_wrong_file_is_told_without_its_words() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.json"), r#"{"auths":{"a":{"auth":"secret!"}}}"#)
            .unwrap();
        let error = format!("{:#}", get(directory.path(), "a").unwrap_err());
        assert!(!error.contains("secret"), "{error}");
        assert!(call("../x", "get", "a").is_err());
    }
}
