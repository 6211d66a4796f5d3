//! `hull.v1.Networks`. A connection is the container's: its owner makes and ends it.

use hull_manager_containers::Containers;
use hull_manager_networks::Networks;
use hull_specs_api::v1;
use tonic::{Request, Response, Status};

use crate::status;

pub(crate) struct Service(pub(crate) Networks, pub(crate) Containers);

macro_rules! unary {
    ($($part:tt . $rpc:ident($request:ident) -> $response:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl v1::networks_server::Networks for Service {
            $(async fn $rpc(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                self.$part.$rpc(request.into_inner()).await.map(Response::new).map_err(status)
            })*
        }
    };
}

unary! {
    0.create(CreateNetworkRequest) -> CreateNetworkResponse,
    0.list(ListNetworksRequest) -> ListNetworksResponse,
    0.inspect(InspectNetworkRequest) -> Network,
    0.remove(RemoveNetworkRequest) -> RemoveNetworkResponse,
    1.connect(ConnectNetworkRequest) -> ConnectNetworkResponse,
    1.disconnect(DisconnectNetworkRequest) -> DisconnectNetworkResponse,
    0.prune(PruneNetworksRequest) -> PruneNetworksResponse,
    0.audit(AuditNetworksRequest) -> AuditNetworksResponse,
}
