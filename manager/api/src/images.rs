//! `hull.v1.Images`.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use hull_manager_core::Error;
use hull_manager_images::Images;
use hull_specs_api::v1;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{status, stream::Answers};

pub(crate) struct Service(pub(crate) Images);

/// A client's messages. Its failure is that it went away before it had sent everything.
struct Messages<T>(Streaming<T>);

impl<T> Stream for Messages<T> {
    type Item = hull_manager_core::Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(context).map(|message| {
            message.map(|message| {
                message.map_err(|status| match status.code() {
                    Code::OutOfRange | Code::ResourceExhausted => {
                        Error::exhausted(status.message())
                    }
                    _ => Error::cancelled(format!(
                        "the client did not send everything: {}",
                        status.message()
                    )),
                })
            })
        })
    }
}

macro_rules! service {
    (
        unary { $($unary:ident($unary_request:ident) -> $unary_response:ident,)* }
        answers { $($answers:ident($answers_request:ident) -> $name:ident = $answer:ident,)* }
        upload { $($upload:ident($upload_request:ident) -> $upload_name:ident = $upload_answer:ident,)* }
    ) => {
        #[tonic::async_trait]
        impl v1::images_server::Images for Service {
            $(async fn $unary(
                &self, request: Request<v1::$unary_request>,
            ) -> Result<Response<v1::$unary_response>, Status> {
                self.0.$unary(request.into_inner()).await.map(Response::new).map_err(status)
            })*

            $(type $name = Answers<v1::$answer>;

            async fn $answers(
                &self, request: Request<v1::$answers_request>,
            ) -> Result<Response<Self::$name>, Status> {
                let (images, request) = (self.0.clone(), request.into_inner());
                Ok(Answers::of(|queue| async move { images.$answers(request, queue).await }))
            })*

            $(type $upload_name = Answers<v1::$upload_answer>;

            async fn $upload(
                &self, request: Request<Streaming<v1::$upload_request>>,
            ) -> Result<Response<Self::$upload_name>, Status> {
                let (images, messages) = (self.0.clone(), Messages(request.into_inner()));
                Ok(Answers::of(|queue| async move { images.$upload(messages, queue).await }))
            })*
        }
    };
}

service! {
    unary {
        list(ListImagesRequest) -> ListImagesResponse,
        inspect(InspectImageRequest) -> InspectImageResponse,
        history(ImageHistoryRequest) -> ImageHistoryResponse,
        tag(TagImageRequest) -> TagImageResponse,
        remove(RemoveImageRequest) -> RemoveImageResponse,
        prune(PruneImagesRequest) -> PruneImagesResponse,
        search(SearchRequest) -> SearchResponse,
        check_credentials(CheckCredentialsRequest) -> CheckCredentialsResponse,
    }
    answers {
        pull(PullRequest) -> PullStream = PullResponse,
        push(PushRequest) -> PushStream = PushResponse,
        save(SaveRequest) -> SaveStream = SaveResponse,
    }
    upload {
        load(LoadRequest) -> LoadStream = LoadResponse,
        import(ImportRequest) -> ImportStream = ImportResponse,
    }
}
