//! `hull login` and `logout`, and the credentials that other commands send along.

use std::io::{self, IsTerminal as _, Read as _};

use anyhow::{Context as _, Result, anyhow, bail};
use hull_runtime_sys::tty;
use hull_specs_api::v1::{CheckCredentialsRequest, Credentials};
use hull_specs_image::{Reference, reference::DEFAULT_DOMAIN};

use crate::{
    args::image::{LoginArgs, LogoutArgs},
    connect::Manager,
    credentials,
    failure::refused,
    prompt, report,
    terminal::output::print,
};

/// The most bytes of a password.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

/// What is known for the registry of a reference.
pub(crate) fn credentials(manager: &Manager, name: &Reference) -> Result<Option<Credentials>> {
    credentials_for(manager, name.domain())
}

/// What is known for a registry.
pub(crate) fn credentials_for(manager: &Manager, registry: &str) -> Result<Option<Credentials>> {
    credentials::get(&manager.config_dir, registry)
}

/// `login`: asks the registry first, and keeps what it took.
pub(crate) async fn login(manager: &Manager, args: &LoginArgs) -> Result<u8> {
    let registry = registry(args.server.as_deref());
    let (username, password) = told(args)?;
    let mut given = Credentials { username, password, ..Credentials::default() };
    let request =
        CheckCredentialsRequest { registry: registry.clone(), credentials: Some(given.clone()) };
    let answer = manager.images().check_credentials(request).await.map_err(refused)?;
    let token = answer.into_inner().identity_token;
    if !token.is_empty() {
        given.password.clear();
        given.identity_token = token;
    }
    if let Some(warning) = credentials::store(&manager.config_dir, &registry, &given)? {
        report::line(&warning);
    }
    print("Login Succeeded\n")?;
    Ok(0)
}

/// `logout`.
pub(crate) async fn logout(manager: &Manager, args: &LogoutArgs) -> Result<u8> {
    let registry = registry(args.server.as_deref());
    let shown = if registry == DEFAULT_DOMAIN { "https://index.docker.io/v1/" } else { &registry };
    print(&format!("Removing login credentials for {shown}\n"))?;
    credentials::erase(&manager.config_dir, &registry)?;
    Ok(0)
}

/// A server as people type it: a host, or an address of docker's.
fn registry(server: Option<&str>) -> String {
    let server = server.unwrap_or(DEFAULT_DOMAIN);
    let host = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "index.docker.io" | "registry-1.docker.io" | "" => DEFAULT_DOMAIN.to_owned(),
        host => host.to_owned(),
    }
}

/// Name and password, from options, standard input or the person.
fn told(args: &LoginArgs) -> Result<(String, String)> {
    if args.password.is_some() && args.password_stdin {
        bail!("--password and --password-stdin are mutually exclusive");
    }
    if args.password_stdin {
        let username = args.username.clone().filter(|name| !name.is_empty());
        let username =
            username.ok_or_else(|| anyhow!("Must provide --username with --password-stdin"))?;
        let mut password = String::new();
        io::stdin()
            .lock()
            .take(MAX_PASSWORD_BYTES)
            .read_to_string(&mut password)
            .context("read the password")?;
        return Ok((username, password.trim_end_matches(['\r', '\n']).to_owned()));
    }
    if args.password.is_some() {
        report::line("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let asks = args.username.is_none() || args.password.is_none();
    if asks && !io::stdin().is_terminal() {
        bail!("Cannot perform an interactive login from a non TTY device");
    }
    let username = match &args.username {
        Some(username) => username.clone(),
        None => prompt::line("Username: ")?.trim().to_owned(),
    };
    if username.is_empty() {
        bail!("username is required");
    }
    let password = match &args.password {
        Some(password) => password.clone(),
        None => unseen("Password: ")?,
    };
    if password.is_empty() {
        bail!("password is required");
    }
    Ok((username, password))
}

/// A line that the terminal does not show.
fn unseen(question: &str) -> Result<String> {
    let before = tty::hide_input(io::stdin()).context("the terminal")?;
    let answer = prompt::line(question);
    tty::restore(io::stdin(), &before).context("the terminal")?;
    // The person's line end was not shown either.
    print("\n")?;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_registries() {
        for (server, host) in [
            (None, "docker.io"),
            (Some("https://index.docker.io/v1/"), "docker.io"),
            (Some("localhost:5000"), "localhost:5000"),
            (Some("https://quay.io/"), "quay.io"),
        ] {
            assert_eq!(registry(server), host);
        }
    }

    #[test]
    fn a_password_is_never_in_debug_output() {
        let args = LoginArgs {
            password: Some("secret".into()),
            password_stdin: false,
            username: None,
            server: None,
        };
        assert!(!format!("{args:?}").contains("secret"));
    }
}
