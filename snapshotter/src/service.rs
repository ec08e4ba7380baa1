//! The gRPC service `containerd.services.snapshots.v1.Snapshots`: requests in, state machine, answers out.
//!
//! The field `snapshotter` of each request is the name under which containerd knows the plugin; it selects nothing here.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use proto::snapshots::{
    CleanupRequest, CommitSnapshotRequest, Info, Kind as ProtoKind, ListSnapshotsRequest,
    ListSnapshotsResponse, MountsRequest, MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse,
    RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse, UpdateSnapshotRequest,
    UpdateSnapshotResponse, UsageRequest, UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse,
    snapshots_server::{Snapshots as SnapshotsApi, SnapshotsServer},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    error::SnapshotError,
    filters::Filters,
    lazy::Labels,
    metadata::{Kind, Record},
    name::Name,
    snapshots::{Snapshots, blocking},
};

/// containerd's clients send and accept this much.
const MAX_MESSAGE: usize = 16 << 20;
/// As many as containerd's own service puts into a message of List.
const LIST_BATCH: usize = 100;
/// Messages of a List that wait for a slow client.
const LIST_AHEAD: usize = 2;

/// The service.
#[derive(Debug)]
pub struct SnapshotsService {
    snapshots: Arc<Snapshots>,
}

// === impl SnapshotsService ===

impl SnapshotsService {
    /// A gRPC server part that answers for `snapshots`.
    pub fn server(snapshots: Arc<Snapshots>) -> SnapshotsServer<Self> {
        SnapshotsServer::new(Self { snapshots })
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshots) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let snapshots = Arc::clone(&self.snapshots);
        Ok(Response::new(blocking(move || work(&snapshots)).await?))
    }
}

#[tonic::async_trait]
impl SnapshotsApi for SnapshotsService {
    type ListStream = ReceiverStream<Result<ListSnapshotsResponse, Status>>;

    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        let PrepareSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        let mounts = self.snapshots.prepare(key.into(), name(parent), sorted(labels)).await?;
        Ok(Response::new(PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<ViewSnapshotRequest>,
    ) -> Result<Response<ViewSnapshotResponse>, Status> {
        let ViewSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        let (key, parent, labels) = (Name::from(key), name(parent), sorted(labels));
        self.run(move |snapshots| {
            let mounts = snapshots.create(Kind::View, &key, parent.as_ref(), &labels)?;
            Ok(ViewSnapshotResponse { mounts })
        })
        .await
    }

    async fn mounts(&self, request: Request<MountsRequest>) -> Result<Response<MountsResponse>, Status> {
        let key = Name::from(request.into_inner().key);
        self.run(move |snapshots| Ok(MountsResponse { mounts: snapshots.mounts(&key)? })).await
    }

    async fn commit(&self, request: Request<CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let CommitSnapshotRequest { name: new, key, labels, parent, .. } = request.into_inner();
        let (new, key, parent) = (Name::from(new), Name::from(key), name(parent));
        self.run(move |snapshots| snapshots.commit(&new, &key, parent.as_ref(), sorted(labels))).await
    }

    async fn remove(&self, request: Request<RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        let key = Name::from(request.into_inner().key);
        self.run(move |snapshots| snapshots.remove(&key)).await
    }

    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        let key = Name::from(request.into_inner().key);
        self.run(move |snapshots| {
            let record = snapshots.stat(&key)?;
            Ok(StatSnapshotResponse { info: Some(info(&key, record)) })
        })
        .await
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        let UpdateSnapshotRequest { info: new, update_mask, .. } = request.into_inner();
        let Info { name, labels, .. } = new.ok_or(SnapshotError::Absent("info"))?;
        let paths = update_mask.unwrap_or_default().paths;
        self.run(move |snapshots| {
            let name = Name::from(name);
            let record = snapshots.update(&name, &paths, &sorted(labels))?;
            Ok(UpdateSnapshotResponse { info: Some(info(&name, record)) })
        })
        .await
    }

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let filters = Filters::parse(&request.into_inner().filters).map_err(SnapshotError::from)?;
        let (sender, receiver) = mpsc::channel(LIST_AHEAD);
        let snapshots = Arc::clone(&self.snapshots);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = send_list(&snapshots, &filters, &sender) {
                // A client that is gone needs no error.
                let _ = sender.blocking_send(Err(error.into()));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn usage(&self, request: Request<UsageRequest>) -> Result<Response<UsageResponse>, Status> {
        let key = Name::from(request.into_inner().key);
        self.run(move |snapshots| {
            let usage = snapshots.usage(&key)?;
            let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
            Ok(UsageResponse { size: signed(usage.size), inodes: signed(usage.inodes) })
        })
        .await
    }

    async fn cleanup(&self, _: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        self.snapshots.cleanup().await?;
        Ok(Response::new(()))
    }
}

/// Sends what `filters` select, a message a batch, until the client goes away.
fn send_list(
    snapshots: &Snapshots,
    filters: &Filters,
    sender: &mpsc::Sender<Result<ListSnapshotsResponse, Status>>,
) -> Result<(), SnapshotError> {
    let mut batch = Vec::new();
    snapshots.list(filters, |name, record| {
        batch.push(info(&name, record));
        if batch.len() < LIST_BATCH {
            return ControlFlow::Continue(());
        }
        let message = ListSnapshotsResponse { info: std::mem::take(&mut batch) };
        match sender.blocking_send(Ok(message)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    if !batch.is_empty() {
        // The client may be gone: nothing is left to do then either.
        let _ = sender.blocking_send(Ok(ListSnapshotsResponse { info: batch }));
    }
    Ok(())
}

fn info(name: &Name, record: Record) -> Info {
    let kind = match record.kind {
        Kind::View => ProtoKind::View,
        Kind::Active => ProtoKind::Active,
        Kind::Committed => ProtoKind::Committed,
    };
    Info {
        name: name.to_string(),
        parent: record.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        kind: kind.into(),
        created_at: Some(record.created.into()),
        updated_at: Some(record.updated.into()),
        labels: record.labels.into_iter().collect(),
    }
}

fn name(text: String) -> Option<Name> {
    (!text.is_empty()).then(|| text.into())
}

fn sorted(labels: HashMap<String, String>) -> Labels {
    labels.into_iter().collect()
}
