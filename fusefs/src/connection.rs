//! The connection with the kernel, from mount to unmount.

mod error;
mod forgetter;
mod mountinfo;
mod place;

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, mpsc},
    time::Duration,
};

use fuser::{Session, SessionACL};
use tokio::runtime::Handle;

pub use self::error::{AttachError, MountError, UnmountError};
use self::forgetter::Forgetter;
use crate::{
    Counters, LayerTree, MountOptions, Slot,
    counters::LiveCounters,
    server::{Server, Shared},
    table::LayerTable,
};

/// How long [`Connection::unmount`] waits for the threads to end after the kernel let go of the mount. In another mount
/// namespace a copy of it may live on.
const END: Duration = Duration::from_secs(2);

/// The one FUSE mount that shows all layers.
///
/// Dropping it ends nothing: the mount is served as long as the process lives, for containers may be using it.
pub struct Connection {
    shared: Arc<Shared>,
    mountpoint: PathBuf,
    /// Shares the open file with the session, for whoever takes the connection over.
    device: OwnedFd,
    offered: InitParameters,
    forgetter: Forgetter,
    /// Closed when the session ended.
    ended: parking_lot::Mutex<mpsc::Receiver<()>>,
}

/// What the kernel offered in the handshake (`struct fuse_init_in`): what a successor must be told to take the
/// connection over, for the kernel says it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitParameters {
    /// Major version of the protocol.
    pub major: u32,
    /// Minor version of the protocol.
    pub minor: u32,
    /// Largest read-ahead in bytes.
    pub max_readahead: u32,
    /// Features, both halves (`flags2 << 32 | flags`), without `FUSE_INIT_EXT`.
    pub flags: u64,
}

// === impl Connection ===

impl Connection {
    /// Mounts a connection without layers. A mount that a dead predecessor left at the same place is detached; that
    /// none is alive is for the caller to know (a lock). The directory above is closed to other users. Reads that
    /// have to wait for bytes become tasks of `runtime`.
    pub fn mount(mountpoint: &Path, options: MountOptions, runtime: Handle) -> Result<Self, MountError> {
        let mountpoint = place::prepare(mountpoint)?;
        let shared = Arc::new(Shared {
            layers: LayerTable::new(),
            counters: LiveCounters::default(),
            options,
            runtime,
            offered: OnceLock::new(),
        });
        let device = OwnedFd::from(place::mount(&mountpoint)?);
        Self::serve(shared, &mountpoint, device).inspect_err(|_| {
            if let Err(error) = place::unmount(&mountpoint, true) {
                tracing::warn!(path = %mountpoint.display(), %error, "cannot unmount a connection that failed");
            }
        })
    }

    fn serve(shared: Arc<Shared>, mountpoint: &Path, device: OwnedFd) -> Result<Self, MountError> {
        let mut config = fuser::Config::default();
        config.acl = SessionACL::All;
        config.n_threads = Some(shared.options.threads.max(1));
        // Cloned descriptors would die with the process, and the requests on them; this one can be handed over.
        config.clone_fd = false;
        let session_fd = device.try_clone().map_err(MountError::Device)?;
        let server = Server::new(shared.clone());
        let session =
            Session::from_fd(server, session_fd, SessionACL::All, config).map_err(MountError::Handshake)?;
        let unsaid = || MountError::Handshake(io::ErrorKind::InvalidData.into());
        let offered = shared.offered.get().copied().ok_or_else(unsaid)?;
        let forgetter = Forgetter::start(session.notifier()).map_err(MountError::Thread)?;
        let (end, ended) = mpsc::channel();
        std::thread::Builder::new()
            .name("fuse-session".into())
            .spawn(move || {
                match session.run() {
                    Ok(()) => tracing::debug!("FUSE connection ended"),
                    Err(error) => tracing::error!(%error, "FUSE connection failed"),
                }
                drop::<mpsc::Sender<()>>(end);
            })
            .map_err(MountError::Thread)?;
        place::raise_read_ahead(mountpoint, shared.options.read_ahead_kb);
        let ended = parking_lot::Mutex::new(ended);
        Ok(Self { shared, mountpoint: mountpoint.to_owned(), device, offered, forgetter, ended })
    }

    /// Shows a layer at [`Self::layer_path`]. Visible at once, whoever looked before.
    pub fn attach<L: LayerTree>(&self, slot: Slot, layer: Arc<L>) -> Result<(), AttachError> {
        if self.shared.layers.attach(slot, layer) { Ok(()) } else { Err(AttachError::SlotUsed(slot)) }
    }

    /// Takes a layer away; false if there was none. Its directory is gone at once; what is still open in it gives
    /// ESTALE for what the kernel does not have. The kernel's memory of it is freed soon after.
    pub fn detach(&self, slot: Slot) -> bool {
        let detached = self.shared.layers.detach(slot).is_some();
        if detached {
            self.forgetter.forget(slot);
        }
        detached
    }

    /// Whether a layer is in the slot.
    pub fn is_attached(&self, slot: Slot) -> bool {
        self.shared.layers.now().layer(slot).is_some()
    }

    /// Where the layer in a slot is, to be named in `lowerdir=`. Never touch it from this process: a thread that does
    /// waits for the others.
    pub fn layer_path(&self, slot: Slot) -> PathBuf {
        self.mountpoint.join(slot.to_string())
    }

    /// Where the connection is mounted, without symbolic links.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// What was asked and answered so far.
    pub fn counters(&self) -> Counters {
        self.shared.counters.snapshot()
    }

    /// Whether requests are still served: false once the connection was unmounted everywhere, or aborted.
    pub fn is_served(&self) -> bool {
        self.ended.lock().try_recv() == Err(mpsc::TryRecvError::Empty)
    }

    /// The descriptor of `/dev/fuse` and what the kernel offered on it: all that a successor needs to go on serving.
    pub fn hand_over(&self) -> (BorrowedFd<'_>, InitParameters) {
        (self.device.as_fd(), self.offered)
    }

    /// Unmounts if nobody uses a layer.
    pub fn unmount(&self) -> Result<(), UnmountError> {
        self.end(false)?;
        let _ = self.ended.lock().recv_timeout(END);
        Ok(())
    }

    /// Unmounts; what is in use goes on being served, and the mount disappears with its last user.
    pub fn unmount_lazily(&self) -> Result<(), UnmountError> {
        self.end(true)
    }

    fn end(&self, lazily: bool) -> Result<(), UnmountError> {
        let path = self.mountpoint.clone();
        place::unmount(&self.mountpoint, lazily).map_err(|errno| match errno {
            nix::errno::Errno::EBUSY => UnmountError::InUse { path },
            errno => UnmountError::Kernel { path, source: errno.into() },
        })
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("mountpoint", &self.mountpoint).finish_non_exhaustive()
    }
}
