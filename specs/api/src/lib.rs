//! hull.v1, the manager's gRPC API: messages, clients and servers as tonic makes them from
//! `proto/hull/v1`, where each is documented.
#![forbid(unsafe_code)]

/// The package `hull.v1`.
#[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("hull.v1");
}

/// Secrets are neither printed nor logged, whatever holds them.
impl std::fmt::Debug for v1::Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for v1::CheckCredentialsResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckCredentialsResponse").finish_non_exhaustive()
    }
}

/// The descriptors of all of it, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("hull.v1");

#[cfg(test)]
mod tests {
    use super::v1::{CheckCredentialsResponse, Credentials, PullRequest};

    #[test]
    fn secrets_of_messages_are_not_printed() {
        let secret = || "hunter2".to_owned();
        let credentials = Credentials {
            username: "alice".into(),
            password: secret(),
            identity_token: secret(),
            registry_token: secret(),
        };
        let request = PullRequest { credentials: Some(credentials), ..PullRequest::default() };
        let text =
            format!("{request:?} {:?}", CheckCredentialsResponse { identity_token: secret() });
        assert!(text.contains("alice") && !text.contains("hunter2"), "{text}");
    }
}
