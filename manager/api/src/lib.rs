//! hull.v1 over gRPC: translation only. Each method hands its message to the domain and brings
//! the answer, or the failure, into gRPC's form.
//!
//! What a request may cost is limited here (R14): messages, streams of one connection, queues.
//! A stream that its client leaves ends the work behind it.
#![forbid(unsafe_code)]

mod containers;
mod deadline;
mod images;
mod late;
mod networks;
mod status;
mod stopping;
mod stream;
mod volumes;

use hull_manager_containers::Containers;
use hull_manager_images::Images;
use hull_manager_networks::Networks;
use hull_manager_volumes::Volumes;
use hull_specs_api::{
    DESCRIPTORS,
    v1::{
        containers_server::ContainersServer,
        images_server::ImagesServer,
        networks_server::NetworksServer,
        system_server::{System, SystemServer},
        volumes_server::VolumesServer,
    },
};
use tokio::sync::watch;
use tonic::service::Routes;

use self::{late::Late, stopping::Stopping};
pub use self::{status::status, stream::Answers};

/// The longest message of a client: 4 MiB, of which content takes at most 1.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// What the services act on.
pub struct Domain<S> {
    /// Images.
    pub images: Images,
    /// Containers.
    pub containers: Containers,
    /// Networks.
    pub networks: Networks,
    /// Volumes.
    pub volumes: Volumes,
    /// The manager itself; only who made everything can answer for it.
    pub system: S,
    /// True once the manager is asked to stop: what still goes on a moment later is told so.
    pub closing: watch::Receiver<bool>,
}

/// All services of hull.v1, with health (`grpc.health.v1`) and reflection (`grpc.reflection.v1`
/// and `v1alpha`, which older tools speak).
pub async fn routes<S: System>(domain: Domain<S>) -> Routes {
    let images = ImagesServer::new(images::Service(domain.images))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let networks =
        NetworksServer::new(networks::Service(domain.networks, domain.containers.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let containers = ContainersServer::new(containers::Service(domain.containers))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let volumes = VolumesServer::new(volumes::Service(domain.volumes))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let system = SystemServer::new(domain.system).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<ImagesServer<images::Service>>().await;
    reporter.set_serving::<ContainersServer<containers::Service>>().await;
    reporter.set_serving::<NetworksServer<networks::Service>>().await;
    reporter.set_serving::<VolumesServer<volumes::Service>>().await;
    reporter.set_serving::<SystemServer<S>>().await;
    let routes = Routes::new(images)
        .add_service(containers)
        .add_service(networks)
        .add_service(volumes)
        .add_service(system)
        .add_service(health)
        .add_service(Late::new(|| reflection().build_v1()))
        .add_service(Late::new(|| reflection().build_v1alpha()));
    let stopping = Stopping::new(domain.closing);
    routes
        .into_axum_router()
        .layer(tower::layer::layer_fn(deadline::Deadlines))
        .layer(tower::layer::layer_fn(move |service| stopping.around(service)))
        .into()
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_descriptors_can_be_reflected() {
        super::reflection().build_v1().unwrap();
        super::reflection().build_v1alpha().unwrap();
    }
}
