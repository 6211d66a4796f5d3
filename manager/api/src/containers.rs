//! `hull.v1.Containers`.

use hull_manager_containers::Containers;
use hull_specs_api::v1;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    status,
    stream::{Received, received, sent},
};

pub(crate) struct Service(pub(crate) Containers);

macro_rules! service {
    (
        unary { $($unary:ident($unary_request:ident) -> $unary_response:ident,)* }
        answers { $($answers:ident($answers_request:ident) -> $name:ident = $answer:ident,)* }
        both { $($both:ident($both_request:ident) -> $both_name:ident = $both_answer:ident,)* }
        upload { $($upload:ident($upload_request:ident) -> $upload_response:ident,)* }
    ) => {
        #[tonic::async_trait]
        impl v1::containers_server::Containers for Service {
            $(async fn $unary(
                &self, request: Request<v1::$unary_request>,
            ) -> Result<Response<v1::$unary_response>, Status> {
                self.0.$unary(request.into_inner()).await.map(Response::new).map_err(status)
            })*

            $(type $name = Received<v1::$answer>;

            async fn $answers(
                &self, request: Request<v1::$answers_request>,
            ) -> Result<Response<Self::$name>, Status> {
                self.0.$answers(request.into_inner()).await.map(received).map_err(status)
            })*

            $(type $both_name = Received<v1::$both_answer>;

            async fn $both(
                &self, request: Request<Streaming<v1::$both_request>>,
            ) -> Result<Response<Self::$both_name>, Status> {
                self.0.$both(sent(request.into_inner())).await.map(received).map_err(status)
            })*

            $(async fn $upload(
                &self, request: Request<Streaming<v1::$upload_request>>,
            ) -> Result<Response<v1::$upload_response>, Status> {
                self.0.$upload(sent(request.into_inner())).await.map(Response::new).map_err(status)
            })*
        }
    };
}

service! {
    unary {
        create(CreateContainerRequest) -> CreateContainerResponse,
        start(StartContainerRequest) -> StartContainerResponse,
        stop(StopContainerRequest) -> StopContainerResponse,
        restart(RestartContainerRequest) -> RestartContainerResponse,
        kill(KillContainerRequest) -> KillContainerResponse,
        pause(PauseContainerRequest) -> PauseContainerResponse,
        unpause(UnpauseContainerRequest) -> UnpauseContainerResponse,
        wait(WaitContainerRequest) -> WaitContainerResponse,
        remove(RemoveContainerRequest) -> RemoveContainerResponse,
        rename(RenameContainerRequest) -> RenameContainerResponse,
        update(UpdateContainerRequest) -> UpdateContainerResponse,
        list(ListContainersRequest) -> ListContainersResponse,
        inspect(InspectContainerRequest) -> InspectContainerResponse,
        prune(PruneContainersRequest) -> PruneContainersResponse,
        resize_terminal(ResizeTerminalRequest) -> ResizeTerminalResponse,
        create_exec(CreateExecRequest) -> CreateExecResponse,
        inspect_exec(InspectExecRequest) -> Exec,
        top(TopRequest) -> TopResponse,
        why(WhyRequest) -> WhyResponse,
        stat_path(StatPathRequest) -> PathStat,
        diff(DiffRequest) -> DiffResponse,
    }
    answers {
        logs(LogsRequest) -> LogsStream = LogEntry,
        stats(StatsRequest) -> StatsStream = StatsResponse,
        copy_out(CopyOutRequest) -> CopyOutStream = CopyOutResponse,
        export(ExportRequest) -> ExportStream = ExportResponse,
        commit(CommitRequest) -> CommitStream = CommitResponse,
    }
    both {
        attach(AttachRequest) -> AttachStream = AttachResponse,
        start_exec(StartExecRequest) -> StartExecStream = AttachResponse,
    }
    upload {
        copy_in(CopyInRequest) -> CopyInResponse,
    }
}
