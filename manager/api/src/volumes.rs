//! `hull.v1.Volumes`.

use hull_manager_core::Error;
use hull_manager_volumes::Volumes;
use hull_specs_api::v1;
use tonic::{Request, Response, Status};

use crate::status;

pub(crate) struct Service(pub(crate) Volumes);

macro_rules! unary {
    ($($rpc:ident($request:ident) -> $response:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl v1::volumes_server::Volumes for Service {
            $(async fn $rpc(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                // A volume's directory may be large, and on a slow disk.
                let (volumes, request) = (self.0.clone(), request.into_inner());
                let done = tokio::task::spawn_blocking(move || volumes.$rpc(&request)).await;
                done.map_err(|error| status(Error::internal(error)))?.map(Response::new).map_err(status)
            })*
        }
    };
}

unary! {
    create(CreateVolumeRequest) -> Volume,
    list(ListVolumesRequest) -> ListVolumesResponse,
    inspect(InspectVolumeRequest) -> Volume,
    remove(RemoveVolumeRequest) -> RemoveVolumeResponse,
    prune(PruneVolumesRequest) -> PruneVolumesResponse,
}
