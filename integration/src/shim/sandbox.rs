//! A sandbox: a shim that is there for a group of containers, as containerd 2 makes it.

use std::fmt::Display;
use std::time::Duration;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::sandbox_api as api;
use serde_json::json;

use super::client::rpc;
use super::{Client, Host, Refusal, SOON, Version};

const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// A shim that was started for a sandbox.
#[derive(Debug)]
pub struct Sandbox<'host> {
    host: &'host Host,
    client: Client,
    id: String,
    bundle: String,
}

impl Host {
    /// Starts a shim for a sandbox whose bundle has an empty configuration.
    #[track_caller]
    pub fn sandbox(&self, id: &str) -> Sandbox<'_> {
        self.make_bundle(id, &json!({ "ociVersion": "1.1.0" }));
        self.sandbox_of_bundle(id)
    }

    /// Starts a shim for a sandbox whose bundle is there.
    #[track_caller]
    pub fn sandbox_of_bundle(&self, id: &str) -> Sandbox<'_> {
        let launch = self.launch(id);
        let bundle = launch.bundle.clone();
        let (_, client) = self.start_shim(launch);
        let client = client.service(SERVICE);
        Sandbox { host: self, client, id: id.to_owned(), bundle }
    }
}

impl Sandbox<'_> {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The same, by another connection.
    #[must_use]
    pub fn again(&self) -> Self {
        let client = Client::connect(&self.host.reply(&self.id).address, Version::V3);
        let mut again = self.called(&self.id);
        again.client = client.service(SERVICE);
        again
    }

    /// The same shim, asked for a sandbox of another name.
    #[must_use]
    pub fn called(&self, id: &str) -> Self {
        let (client, bundle) = (self.client.clone(), self.bundle.clone());
        Self { host: self.host, client, id: id.to_owned(), bundle }
    }

    fn call<Q: Message + Display, A: Message + Display>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<A, Refusal> {
        self.client.call(method, request)
    }

    /// Makes it, perhaps with more than its name.
    pub fn try_create(
        &self,
        change: impl FnOnce(&mut api::CreateSandboxRequest),
    ) -> Result<(), Refusal> {
        let mut request = api::CreateSandboxRequest {
            sandbox_id: self.id.clone(),
            bundle_path: self.bundle.clone(),
            ..Default::default()
        };
        change(&mut request);
        self.call::<_, api::CreateSandboxResponse>("CreateSandbox", &request).map(drop)
    }

    /// Starts it.
    pub fn try_start(&self) -> Result<api::StartSandboxResponse, Refusal> {
        let request =
            api::StartSandboxRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.call("StartSandbox", &request)
    }

    /// Makes and starts it.
    #[track_caller]
    pub fn start(self) -> Self {
        self.try_create(|_| {}).unwrap_or_else(|refusal| panic!("CreateSandbox: {refusal:?}"));
        self.try_start().unwrap_or_else(|refusal| panic!("StartSandbox: {refusal:?}"));
        self
    }

    /// What its containers are to be for.
    pub fn try_platform(&self) -> Result<api::PlatformResponse, Refusal> {
        let request = api::PlatformRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.call("Platform", &request)
    }

    /// Whether it is ready.
    pub fn try_ping(&self) -> Result<(), Refusal> {
        let request = api::PingRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.call::<_, api::PingResponse>("PingSandbox", &request).map(drop)
    }

    /// How it is.
    pub fn try_status(&self, verbose: bool) -> Result<api::SandboxStatusResponse, Refusal> {
        let sandbox_id = self.id.clone();
        let request = api::SandboxStatusRequest { sandbox_id, verbose, ..Default::default() };
        self.call("SandboxStatus", &request)
    }

    /// How it is.
    #[track_caller]
    pub fn status(&self) -> api::SandboxStatusResponse {
        self.try_status(false).unwrap_or_else(|refusal| panic!("SandboxStatus: {refusal:?}"))
    }

    /// What its containers use.
    pub fn try_metrics(&self) -> Result<api::SandboxMetricsResponse, Refusal> {
        let request =
            api::SandboxMetricsRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.call("SandboxMetrics", &request)
    }

    /// Ends its containers, and gives them time for that.
    pub fn try_stop(&self, timeout_secs: u32) -> Result<(), Refusal> {
        let sandbox_id = self.id.clone();
        let request = api::StopSandboxRequest { sandbox_id, timeout_secs, ..Default::default() };
        self.call::<_, api::StopSandboxResponse>("StopSandbox", &request).map(drop)
    }

    /// Ends its containers at once.
    #[track_caller]
    pub fn stop(&self) {
        self.try_stop(0).unwrap_or_else(|refusal| panic!("StopSandbox: {refusal:?}"));
    }

    /// Waits for its end.
    pub fn try_wait(&self, limit: Duration) -> Result<api::WaitSandboxResponse, Refusal> {
        let request = api::WaitSandboxRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.client.call_within(limit, "WaitSandbox", &request)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&self) -> api::WaitSandboxResponse {
        self.try_wait(SOON).unwrap_or_else(|refusal| panic!("WaitSandbox: {refusal:?}"))
    }

    /// Says that it is not wanted any more.
    pub fn try_shut_down(&self) -> Result<(), Refusal> {
        let request =
            api::ShutdownSandboxRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.call::<_, api::ShutdownSandboxResponse>("ShutdownSandbox", &request).map(drop)
    }

    /// Asks, as containerd 1 does it, for the end of a shim that has no container.
    #[track_caller]
    pub fn shut_down_task(&self) {
        let request = rpc::ShutdownRequest { id: self.id.clone(), ..Default::default() };
        let client = self.client.service("containerd.task.v3.Task");
        let answer: Result<rpc::Empty, Refusal> = client.call("Shutdown", &request);
        answer.unwrap_or_else(|refusal| panic!("Shutdown: {refusal:?}"));
    }

    /// Shuts it down, and waits for the end of its shim, which has no container any more.
    #[track_caller]
    pub fn finish(&self) {
        self.try_shut_down().unwrap_or_else(|refusal| panic!("ShutdownSandbox: {refusal:?}"));
        self.host.await_end_of(&self.id);
    }
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        // Its shim would stay for it.
        if std::thread::panicking() {
            let _ = self.try_shut_down();
        }
    }
}
