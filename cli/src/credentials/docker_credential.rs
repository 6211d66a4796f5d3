//! Credential helpers: programs `docker-credential-NAME` that keep what is not to be in a file.
//! A verb is their argument, a server or JSON their input, JSON their answer (the protocol of
//! docker/docker-credential-helpers).

use std::{
    ffi::OsString,
    io::{Read as _, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use hull_specs_api::v1::Credentials;
use serde_json::Value;

/// The most bytes of an answer.
const MAX_BYTES: u64 = 4 << 20;
/// The most characters of a helper's words about a failure.
const MAX_WORDS: usize = 200;
/// The name with which a helper says that it has a token and no password.
pub(super) const TOKEN_USER: &str = "<token>";

/// What a helper may see of our environment: what it needs to find its files, its keyring and
/// the person, and nothing that could be a secret itself (R23).
const ENVIRONMENT: [&str; 18] = [
    "AWS_CONFIG_FILE",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_SHARED_CREDENTIALS_FILE",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "DOCKER_CONFIG",
    "GNUPGHOME",
    "GPG_TTY",
    "HOME",
    "LANG",
    "LOGNAME",
    "PASSWORD_STORE_DIR",
    "PATH",
    "USER",
    "WAYLAND_DISPLAY",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
];

/// A helper, and what it may see.
pub(super) struct Helper {
    name: String,
    environment: Vec<(OsString, OsString)>,
}

impl Helper {
    /// By its name in config.json, with what is allowed of `environment`.
    pub(super) fn new(
        name: &str,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self> {
        let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(word) {
            bail!("{name:?} is not the name of a credential helper");
        }
        let allowed = |name: &OsString| ENVIRONMENT.iter().any(|allowed| name == *allowed);
        let environment = environment.filter(|(name, _)| allowed(name)).collect();
        Ok(Self { name: name.to_owned(), environment })
    }

    /// What it has for a server. An error is one, and no reason to look elsewhere (R17).
    pub(super) fn get(&self, server: &str) -> Result<Option<Credentials>> {
        let Some(answer) = self.call("get", server)? else { return Ok(None) };
        // serde's words would hold pieces of the answer.
        let answer: Value = serde_json::from_str(&answer)
            .ok()
            .filter(Value::is_object)
            .with_context(|| format!("{} did not answer with credentials", self.program()))?;
        let text =
            |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (username, secret) = (text("Username"), text("Secret"));
        let of = if username == TOKEN_USER {
            Credentials { identity_token: secret, ..Credentials::default() }
        } else {
            Credentials { username, password: secret, ..Credentials::default() }
        };
        Ok((of != Credentials::default()).then_some(of))
    }

    /// Has it do something; none if it knows nothing of the server.
    pub(super) fn call(&self, verb: &str, input: &str) -> Result<Option<String>> {
        let program = self.program();
        let mut child = Command::new(&program)
            .arg(verb)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {program}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read says why by its exit.
            let _ = stdin.write_all(input.as_bytes());
        }
        let mut answer = Vec::new();
        let read = child.stdout.take().map(|out| out.take(MAX_BYTES).read_to_end(&mut answer));
        let status = child.wait().with_context(|| format!("wait for {program}"))?;
        read.transpose().with_context(|| format!("read {program}"))?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if status.success() {
            return Ok(Some(answer));
        }
        if answer.contains("credentials not found") {
            return Ok(None);
        }
        bail!("{program} {verb} ended with {status}{}", words(&answer))
    }

    fn program(&self) -> String {
        format!("docker-credential-{}", self.name)
    }
}

/// Why it failed, in the helper's words. What looks like an answer is none, and could be secret.
fn words(answer: &str) -> String {
    let line = answer.trim().lines().next().unwrap_or_default();
    if line.is_empty() || line.contains(['{', '"']) {
        return String::new();
    }
    let line: String = line.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect();
    format!(": {line}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A helper that does `script`, in a directory of its own.
    fn helper(script: &str) -> (tempfile::TempDir, Helper) {
        let directory = tempfile::tempdir().unwrap();
        let written = directory.path().join("script");
        fs::write(&written, format!("#!/bin/sh\ncd {}\n{script}\n", directory.path().display()))
            .unwrap();
        // Never open for writing in a child that another test starts: "text file busy".
        let path = directory.path().join("docker-credential-test");
        let install = Command::new("install").args(["-m", "755"]).args([&written, &path]).status();
        assert!(install.unwrap().success());
        let search = format!("{}:/usr/bin:/bin", directory.path().display());
        let environment =
            [("PATH", search.as_str()), ("HOME", "/h"), ("AWS_SECRET_ACCESS_KEY", "x")]
                .map(|(name, value)| (name.into(), value.into()));
        (directory, Helper::new("test", environment.into_iter()).unwrap())
    }

    #[test]
    fn a_helper_is_asked_with_a_small_environment_and_its_answer_is_read() {
        let (directory, helper) =
            helper(r#"env > seen; cat > input; echo "{\"Username\":\"u\",\"Secret\":\"p$1\"}""#);
        let of = helper.get("a.b").unwrap().unwrap();
        assert_eq!((of.username.as_str(), of.password.as_str()), ("u", "pget"));
        assert_eq!(fs::read_to_string(directory.path().join("input")).unwrap(), "a.b");
        let seen = fs::read_to_string(directory.path().join("seen")).unwrap();
        assert!(seen.contains("HOME=/h") && !seen.contains("AWS_SECRET"), "{seen}");
        let (_directory, helper) = self::helper(r#"echo '{"Username":"<token>","Secret":"t"}'"#);
        assert_eq!(helper.get("a.b").unwrap().unwrap().identity_token, "t");
    }

    #[test]
    fn failures_of_helpers_are_failures_without_secrets() {
        for (script, expected) in [
            ("echo 'credentials not found in native keychain'; exit 1", None),
            ("echo 'the keyring is locked'; exit 1", Some("locked")),
            (r#"echo '{"Secret":"hunter2"}'; exit 1"#, Some("ended with")),
            (r#"echo '{"Secret":"hunter2"'"#, Some("did not answer with credentials")),
            ("echo '[\"hunter2\"]'", Some("did not answer with credentials")),
            ("kill -9 $$", Some("signal")),
        ] {
            let (_directory, helper) = helper(script);
            let result = helper.get("a.b");
            match expected {
                None => assert_eq!(result.unwrap(), None),
                Some(word) => {
                    let error = format!("{:#}", result.unwrap_err());
                    assert!(error.contains(word) && !error.contains("hunter2"), "{error}");
                }
            }
        }
        let (_directory, helper) = helper("yes");
        assert!(helper.call("get", "x").is_err(), "an answer without end");
        for bad in ["../x", "a b", "", "a/b"] {
            assert!(Helper::new(bad, std::iter::empty()).is_err(), "{bad}");
        }
    }
}
