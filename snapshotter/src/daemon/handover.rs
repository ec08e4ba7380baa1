//! The FUSE connections come from a predecessor and go to a successor.
//!
//! They are kept by the service manager from before the first container uses them until nobody can any more, so that they
//! outlive the daemon however that ends. A descriptor's name holds all that a successor must know.

use std::path::Path;

use fusefs::{Connection, ConnectionState, MountError, MountOptions, Opened, Predecessor};
use tokio::runtime::Handle;

use crate::{
    connections::Connections,
    fd_store::{self, Inherited},
    in_use::in_use,
    remote,
};

/// The predecessor's connections, or new ones, below the daemon's root. They are not served yet.
pub(super) fn connect(
    root: &Path,
    inherited: Vec<Inherited>,
    options: &MountOptions,
) -> Result<Connections, MountError> {
    let predecessors = inherited.into_iter().filter_map(predecessor);
    let place = remote::plain_mountpoint(root);
    // What is mounted at neither place any more is served with all layers.
    let (plain, others): (Vec<_>, Vec<_>) =
        predecessors.partition(|predecessor| Connection::is_mounted_at(&place, predecessor));
    let all = open(&remote::mountpoint(root), others, options.clone())?;
    let plain = open(&place, plain, MountOptions { attributes: false, ..options.clone() })?;
    Ok(Connections::new(all, plain))
}

fn open(
    mountpoint: &Path,
    predecessors: Vec<Predecessor>,
    options: MountOptions,
) -> Result<Connection, MountError> {
    let opened = Connection::open(mountpoint, predecessors, options, Handle::current())?;
    let Opened { connection, resumed, dead } = opened;
    dead.iter().for_each(discard);
    if resumed {
        tracing::info!(path = %mountpoint.display(), "the predecessor's layers stay mounted");
    } else {
        keep(&connection);
    }
    Ok(connection)
}

fn predecessor(inherited: Inherited) -> Option<Predecessor> {
    let Inherited { name, descriptor } = inherited;
    match name.parse() {
        Ok(state) => Some(Predecessor { state, device: descriptor }),
        Err(error) => {
            tracing::warn!(name, %error, "a descriptor that the service manager kept is of no use");
            None
        }
    }
}

fn keep(connection: &Connection) {
    let (device, state) = connection.hand_over();
    match fd_store::keep(&state.to_string(), device) {
        Ok(true) => {}
        Ok(false) => tracing::info!(
            "nothing keeps the mount of lazy layers for a successor: running containers lose it with this process; \
             start the daemon by systemd or starling-holder"
        ),
        Err(error) => tracing::warn!(%error, "the service manager does not keep the mount of lazy layers"),
    }
}

fn discard(state: &ConnectionState) {
    if let Err(error) = fd_store::discard(&state.to_string()) {
        tracing::warn!(%error, "the service manager keeps what is of no use");
    }
}

/// Unmounts each connection, unless something stands on it; then it waits for a successor, if it is kept for one.
pub(super) fn leave(connections: &Connections) {
    connections.each().into_iter().for_each(leave_one);
}

fn leave_one(connection: &Connection) {
    // In a pod, the containers are in the mount table of the node, which its first process shows.
    let tables = ["/proc/self/mountinfo", "/proc/1/mountinfo"];
    let tables = tables.map(|table| std::fs::read_to_string(table).unwrap_or_default());
    if tables.iter().any(|mounts| in_use(mounts, connection.mountpoint())) {
        tracing::warn!(
            "containers still use lazy layers: their mount is left to the next daemon, and is out of reach until then"
        );
        return;
    }
    if let Err(error) = connection.unmount() {
        tracing::warn!(error = crate::logging::chain(&error), "the mount of lazy layers is left");
    }
    // One that lives on in another mount namespace is still needed.
    if !connection.is_served() {
        discard(&connection.hand_over().1);
    }
}
