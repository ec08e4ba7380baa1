//! The unix sockets that containerd and kubelet connect to.

use std::{
    fs::DirBuilder,
    future::Future,
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, FileTypeExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::{
    socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr},
    stat::{Mode, fchmod},
};
use tokio::{net::UnixListener, sync::oneshot};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;

use crate::{
    cri::ImageService,
    directories::remove_tree,
    metrics::{CountRpcs, Metrics},
    service::SnapshotsService,
    snapshots::Snapshots,
};

/// Why nothing listens on an address.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process answers there.
    #[error("{0} is in use: stop what listens there, or choose another --address")]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{0} is not a socket: remove it, or choose another --address")]
    NotASocket(PathBuf),
    /// The socket or its directory cannot be made.
    #[error("cannot listen on {path}: {source}")]
    Io {
        /// The address.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Listens on the socket `path`, which only this user may connect to. A directory that is missing is made for this user
/// only; a socket that nobody listens on any more is replaced.
///
/// # Errors
/// The address is taken or cannot be made. Must run inside a tokio runtime.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    }
    match path.symlink_metadata() {
        Ok(stat) if !stat.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) => return Err(BindError::InUse(path.to_owned())),
            Err(error) => return Err(failed(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = listen(path).map_err(failed)?;
    listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener)).map_err(failed)
}

/// The socket has its mode before anyone can see it (Linux gives a bound socket file the mode of the unbound one), and
/// listens before it has its name: whoever sees it can connect.
fn listen(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    // Clients could not name a longer path.
    UnixAddr::new(path)?;
    let unnamed = path.with_file_name(format!(".{}", std::process::id()));
    remove_tree(&unnamed)?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(&unnamed)?)?;
    socket::listen(&socket, Backlog::new(128)?)?;
    std::fs::rename(&unnamed, path)?;
    Ok(socket.into())
}

/// How long calls that are under way at the end may take. A Prepare that waits for a registry may be cut off: containerd
/// asks again.
const GRACE: Duration = Duration::from_secs(5);

/// Calls of one connection that are answered at one time; the others wait in containerd. A Prepare may wait for a registry
/// until its deadline, and calls that need none must find room beside as many of them as a large image has layers, several
/// times over.
const CALLS_AT_ONCE: u32 = 1024;

/// Serves `snapshots` until `shutdown` is ready, then finishes what was asked before, within some seconds. What a crash
/// left behind is deleted meanwhile. With `images`, calls of the CRI image service are passed on here too.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: UnixListener,
    snapshots: Arc<Snapshots>,
    images: Option<ImageService>,
    metrics: Metrics,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let leftovers = Arc::clone(&snapshots);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = leftovers.cleanup_directories() {
            tracing::warn!(%error, "cannot delete the directories of removed snapshots");
        }
    });
    let routes = Routes::new(SnapshotsService::server(snapshots));
    let routes = match images {
        Some(images) => Routes::from(images.beside_snapshots(routes.into_axum_router())),
        None => routes,
    };
    serve_routes(listener, routes, metrics, shutdown).await
}

/// Passes on calls of the CRI image service until `shutdown` is ready, on a socket of their own.
///
/// # Errors
/// The listener failed.
pub async fn serve_images(
    listener: UnixListener,
    images: ImageService,
    metrics: Metrics,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    serve_routes(listener, Routes::from(images.router()), metrics, shutdown).await
}

async fn serve_routes(
    listener: UnixListener,
    routes: Routes,
    metrics: Metrics,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (ending, ended) = oneshot::channel();
    let served = tonic::transport::Server::builder()
        .max_concurrent_streams(CALLS_AT_ONCE)
        .layer(CountRpcs(metrics))
        .add_routes(routes)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async move {
            shutdown.await;
            // The receiver is gone only with the server.
            let _ = ending.send(());
        });
    let overdue = async move {
        match ended.await {
            Ok(()) => tokio::time::sleep(GRACE).await,
            // The server ended by itself.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        result = served => result,
        () = overdue => {
            tracing::warn!(grace = ?GRACE, "calls were still under way and are cut off");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run/starling.sock");
        let first = bind(&path).unwrap();
        assert_eq!((mode(&path), mode(&root.path().join("run"))), (0o600, 0o700));
        assert!(matches!(bind(&path), Err(BindError::InUse(_))));
        drop(first);
        bind(&path).unwrap();
    }

    #[tokio::test]
    async fn what_is_no_socket_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, "kept").unwrap();
        assert!(matches!(bind(&path), Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
        let long = root.path().join("x".repeat(120));
        assert!(bind(&long).unwrap_err().to_string().contains("cannot listen on"));
    }
}
