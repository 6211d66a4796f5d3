//! A further process in a container.

use hull_specs_api::v1;
use hull_specs_oci as oci;

use crate::{
    capabilities, env,
    error::{Error, Result, must},
    path,
};

/// The process of an exec, from the container's own in `spec`: environment, working directory,
/// rights and limits are the same but for what is asked for. `user` is none if the request names
/// no one: then it is the container's. `available` are the capabilities that the manager may give
/// ([`crate::Host::capabilities`]).
///
/// # Errors
/// If the request makes no sense.
pub fn process(
    request: &v1::CreateExecRequest,
    spec: &oci::Spec,
    user: Option<oci::User>,
    available: u64,
) -> Result<oci::Process> {
    must!(
        request.command.first().is_some_and(|word| !word.is_empty()),
        "No exec command specified"
    );
    must!(!request.command.iter().any(|word| word.contains('\0')), "the command has a zero byte");
    env::check(&request.env)?;
    let own = spec.process.as_ref().ok_or_else(|| Error::new("the container has no process"))?;
    let cwd = match request.working_dir.as_str() {
        "" => own.cwd.clone(),
        directory => {
            must!(
                directory.starts_with('/') && !directory.contains('\0'),
                "the working directory '{directory}' is invalid, it needs to be an absolute path"
            );
            path::clean(directory)
        }
    };
    let mut process = oci::Process {
        terminal: request.tty,
        console_size: None,
        user: user.unwrap_or_else(|| own.user.clone()),
        args: request.command.clone(),
        env: environment(&own.env, request, own.terminal),
        cwd,
        ..own.clone()
    };
    let names = match (&own.capabilities, request.privileged) {
        (_, true) => capabilities::all(available),
        (Some(own), false) => own.bounding.clone(),
        (None, false) => Vec::new(),
    };
    process.capabilities = Some(capabilities::sets(&names, process.user.uid));
    Ok(process)
}

/// As docker makes it: TERM is there for a terminal of the exec's own, and not for the container's.
fn environment(own: &[String], request: &v1::CreateExecRequest, own_terminal: bool) -> Vec<String> {
    let mut base = own.to_vec();
    let term = base.iter().position(|entry| entry.starts_with("TERM="));
    match (request.tty, term) {
        (true, None) => base.push("TERM=xterm".to_owned()),
        (false, Some(at)) if own_terminal && base[at] == "TERM=xterm" => drop(base.remove(at)),
        _ => {}
    }
    env::replace(base, &request.env)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(terminal: bool) -> oci::Spec {
        let mut env = vec!["PATH=/bin".to_owned(), "A=1".to_owned()];
        if terminal {
            env.push("TERM=xterm".to_owned());
        }
        let own = oci::Process {
            terminal,
            env,
            cwd: "/srv".into(),
            user: oci::User { uid: 5, ..Default::default() },
            no_new_privileges: true,
            capabilities: Some(capabilities::sets(&["CAP_CHOWN".to_owned()], 0)),
            ..Default::default()
        };
        oci::Spec { process: Some(own), ..Default::default() }
    }

    fn request() -> v1::CreateExecRequest {
        v1::CreateExecRequest { command: vec!["sh".into()], ..Default::default() }
    }

    #[test]
    fn an_exec_is_as_the_container_but_for_what_is_asked() {
        let found = process(&request(), &spec(false), None, u64::MAX).unwrap();
        assert_eq!((found.cwd.as_str(), found.user.uid, found.terminal), ("/srv", 5, false));
        assert!(found.no_new_privileges);
        assert_eq!(found.capabilities.unwrap().bounding, ["CAP_CHOWN"]);
        assert_eq!(
            process(&request(), &spec(false), None, 0).unwrap().capabilities.unwrap().effective,
            [""; 0]
        );
        let asked = v1::CreateExecRequest {
            working_dir: "/a/".into(),
            env: vec!["A=2".into(), "PATH".into()],
            tty: true,
            privileged: true,
            ..request()
        };
        let user = oci::User { uid: 7, ..Default::default() };
        let found = process(&asked, &spec(false), Some(user), u64::MAX).unwrap();
        assert_eq!((found.cwd.as_str(), found.user.uid, found.terminal), ("/a", 7, true));
        assert_eq!(found.env, ["A=2", "TERM=xterm"]);
        assert_eq!(found.capabilities.unwrap().bounding.len(), 41);
    }

    #[test]
    fn term_belongs_to_a_terminal() {
        let found = process(&request(), &spec(true), None, 0).unwrap();
        assert_eq!(found.env, ["PATH=/bin", "A=1"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut bad = request();
        bad.command.clear();
        assert_eq!(
            process(&bad, &spec(false), None, 0).unwrap_err().to_string(),
            "No exec command specified"
        );
        let bad = v1::CreateExecRequest { working_dir: "a".into(), ..request() };
        assert!(process(&bad, &spec(false), None, 0).is_err());
    }
}
