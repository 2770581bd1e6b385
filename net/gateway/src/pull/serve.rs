//! The streams of queriers, on the frontend's side.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use rpc::frontend::frontend_server::Frontend as Service;
use rpc::frontend::{FrontendToQuerier, QuerierToFrontend};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::Frontend;
use crate::state::Gateway;

/// Answers queriers.
#[derive(Clone)]
pub(crate) struct FrontendService {
    gateway: Arc<Gateway>,
}

impl FrontendService {
    pub(crate) fn new(gateway: Arc<Gateway>) -> FrontendService {
        FrontendService { gateway }
    }
}

#[tonic::async_trait]
impl Service for FrontendService {
    type ProcessStream = Pin<Box<dyn Stream<Item = Result<FrontendToQuerier, Status>> + Send>>;

    async fn process(
        &self,
        request: Request<Streaming<QuerierToFrontend>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let services = self.gateway.services().map_err(Status::unavailable)?;
        let frontend = services.frontend.clone();
        let frontend = frontend.ok_or_else(|| Status::unimplemented("this node is no frontend"))?;
        let answers = request.into_inner();
        let (queries, sent) = mpsc::channel(1);
        tokio::spawn(async move { serve(&frontend, answers, queries).await });
        let queries = stream::unfold(sent, |mut sent| async move {
            let query = sent.recv().await?;
            Some((Ok(query), sent))
        });
        Ok(Response::new(Box::pin(queries)))
    }
}

/// A stream counts as a querier as long as it lives.
struct Connected<'a>(&'a Frontend);

impl<'a> Connected<'a> {
    fn new(frontend: &'a Frontend) -> Connected<'a> {
        frontend.metrics.queriers.inc();
        Connected(frontend)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.metrics.queriers.dec();
    }
}

/// One query after another, until the querier goes or nobody waits for what it is at.
async fn serve(
    frontend: &Frontend,
    mut answers: Streaming<QuerierToFrontend>,
    queries: mpsc::Sender<FrontendToQuerier>,
) {
    let Ok(Some(hello)) = answers.message().await else {
        return;
    };
    tracing::debug!(querier = hello.querier, "a querier has come");
    let _connected = Connected::new(frontend);
    let joined = frontend.queue.join(&hello.querier.into());
    loop {
        let mut waiting = tokio::select! {
            // First, or a stream that has ended takes a query with it.
            biased;
            // Whoever says something without a question, or goes, is done.
            _ = answers.message() => return,
            waiting = joined.take() => waiting,
        };
        frontend.show_length(&waiting.tenant);
        frontend
            .metrics
            .waited
            .observe(waiting.since.elapsed().as_secs_f64());
        let query = FrontendToQuerier {
            request: Some(waiting.request),
        };
        if queries.send(query).await.is_err() {
            return;
        }
        let answer = tokio::select! {
            answer = answers.message() => answer,
            // With the stream the work on it ends.
            () = waiting.reply.closed() => return,
        };
        let Ok(Some(QuerierToFrontend {
            response: Some(response),
            stopping,
            ..
        })) = answer
        else {
            return;
        };
        // Whoever has gone meanwhile needs no answer.
        let _ = waiting.reply.send(response);
        if stopping {
            return;
        }
    }
}
