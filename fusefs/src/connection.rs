//! The connection with the kernel, from mount to unmount.

mod error;
mod forgetter;
mod handshake;
mod mountinfo;
mod place;
mod state;

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use estargz::NodeId;
use fuser::Session;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use self::forgetter::Forgetter;
pub use self::{
    error::{AttachError, MountError, UnmountError},
    state::{ConnectionState, InitParameters, ParseStateError, Predecessor},
};
use crate::{
    Counters, LayerTree, MountOptions, Slot,
    chain::Chain,
    counters::LiveCounters,
    server::{Server, Shared},
    shown::Shown,
    table::LayerTable,
    under_way::UnderWay,
};

/// How long [`Connection::unmount`] waits for the threads to end after the kernel let go of the mount. In another mount
/// namespace a copy of it may live on.
const END: Duration = Duration::from_secs(2);

/// A FUSE mount that shows layers, and chains of them.
///
/// Dropping it ends nothing: the mount is served as long as the process lives, for containers may be using it.
pub struct Connection {
    shared: Arc<Shared>,
    mountpoint: PathBuf,
    /// Shares the open file with the session, for whoever takes the connection over.
    device: OwnedFd,
    state: ConnectionState,
    forgetter: Forgetter,
    /// What [`Self::serve`] starts.
    waiting: Mutex<Vec<Waiting>>,
    /// Closed when the session ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

/// A session that nobody runs yet.
struct Waiting {
    session: Session<Server>,
    /// Whether a predecessor may have left requests unanswered; its device then.
    resume: Option<OwnedFd>,
    /// Dropped when the session ends.
    end: mpsc::Sender<()>,
}

/// What [`Connection::open`] made of what a predecessor left.
#[derive(Debug)]
pub struct Opened {
    /// The connection, which is not served yet.
    pub connection: Connection,
    /// Whether it is a predecessor's.
    pub resumed: bool,
    /// Connections that ended since their predecessor went; their descriptors are good for nothing.
    pub dead: Vec<ConnectionState>,
}

// === impl Connection ===

impl Connection {
    /// Mounts and serves a connection without layers. A mount that a dead predecessor left at the same place is detached;
    /// that none is alive is for the caller to know (a lock). The directory above is closed to other users. Reads that
    /// have to wait for bytes become tasks of `runtime`.
    pub fn mount(mountpoint: &Path, options: MountOptions, runtime: Handle) -> Result<Self, MountError> {
        let opened = Self::open(mountpoint, Vec::new(), options, runtime)?;
        opened.connection.serve()?;
        Ok(opened.connection)
    }

    /// Whether it is this predecessor's connection that is mounted at `mountpoint`.
    pub fn is_mounted_at(mountpoint: &Path, predecessor: &Predecessor) -> bool {
        let mounted = place::locate(mountpoint).and_then(|path| place::device_at(&path));
        mounted.is_ok_and(|device| device == Some(predecessor.state.device))
    }

    /// Takes over the connection that is mounted at `mountpoint` if it is one of `predecessors`, and mounts a new one
    /// otherwise. Either is answered from [`Self::serve`] on, which leaves time to attach the predecessor's layers in
    /// their slots.
    ///
    /// Predecessors that live but are mounted elsewhere (someone unmounted them, and containers hold on to them) are
    /// served as well, with the same layers in the same slots.
    pub fn open(
        mountpoint: &Path,
        predecessors: Vec<Predecessor>,
        options: MountOptions,
        runtime: Handle,
    ) -> Result<Opened, MountError> {
        let shared = Arc::new(Shared {
            layers: LayerTable::new(),
            under_way: UnderWay::default(),
            counters: LiveCounters::default(),
            options,
            runtime,
        });
        let path = place::locate(mountpoint)?;
        let mounted = place::device_at(&path)?;
        let (mut alive, mut dead, mut resumed) = (Vec::new(), Vec::new(), None);
        for predecessor in predecessors {
            if !is_alive(&predecessor.device) {
                dead.push(predecessor.state);
            } else if resumed.is_none() && mounted == Some(predecessor.state.device) {
                resumed = Some(predecessor);
            } else {
                alive.push(predecessor);
            }
        }
        let was_resumed = resumed.is_some();
        let connection = match resumed {
            Some(predecessor) => Self::resume(shared, path, predecessor)?,
            None => Self::begin(shared, path)?,
        };
        for predecessor in alive {
            connection.also(predecessor);
        }
        place::raise_read_ahead(&connection.mountpoint, connection.shared.options.read_ahead_kb);
        Ok(Opened { connection, resumed: was_resumed, dead })
    }

    /// Mounts a new connection.
    fn begin(shared: Arc<Shared>, path: PathBuf) -> Result<Self, MountError> {
        place::prepare(&path)?;
        let device = OwnedFd::from(place::mount(&path)?);
        let begun = || {
            let server = Server::new(shared.clone());
            let (session, init) =
                handshake::first(server, &device, config(&shared)).map_err(MountError::Handshake)?;
            let number = place::device_at(&path)?.ok_or_else(|| MountError::Gone { path: path.clone() })?;
            Ok((session, ConnectionState { init, device: number }))
        };
        let (session, state) = begun().inspect_err(|_| {
            if let Err(error) = place::unmount(&path, true) {
                tracing::warn!(path = %path.display(), %error, "cannot unmount a connection that failed");
            }
        })?;
        Self::new(shared, path, device, state, session, None)
    }

    /// Takes a predecessor's connection over. Whatever fails leaves it as it was.
    fn resume(shared: Arc<Shared>, path: PathBuf, predecessor: Predecessor) -> Result<Self, MountError> {
        let Predecessor { state, device } = predecessor;
        let (session, _) =
            handshake::again(Server::new(shared.clone()), &device, state.init, config(&shared))
                .map_err(MountError::Handshake)?;
        let resume = device.try_clone().map_err(MountError::Device)?;
        Self::new(shared, path, device, state, session, Some(resume))
    }

    fn new(
        shared: Arc<Shared>,
        mountpoint: PathBuf,
        device: OwnedFd,
        state: ConnectionState,
        session: Session<Server>,
        resume: Option<OwnedFd>,
    ) -> Result<Self, MountError> {
        let forgetter =
            Forgetter::start(session.notifier(), Arc::clone(&shared)).map_err(MountError::Thread)?;
        let (end, ended) = mpsc::channel();
        let waiting = Mutex::new(vec![Waiting { session, resume, end }]);
        Ok(Self { shared, mountpoint, device, state, forgetter, waiting, ended: Mutex::new(ended) })
    }

    /// Serves another predecessor too. One that cannot be served ends for its users, and costs nobody else anything.
    fn also(&self, predecessor: Predecessor) {
        let Predecessor { state, device } = predecessor;
        let server = Server::new(self.shared.clone());
        match handshake::again(server, &device, state.init, config(&self.shared)) {
            Ok((session, _)) => {
                tracing::info!(%state, "serving a connection that is not mounted here any more");
                let (end, _) = mpsc::channel();
                self.waiting.lock().push(Waiting { session, resume: Some(device), end });
            }
            Err(error) => tracing::warn!(%state, %error, "cannot serve a predecessor's connection"),
        }
    }

    /// Begins to answer; what a predecessor took and did not answer first. Only the first call does something.
    pub fn serve(&self) -> Result<(), MountError> {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().try_for_each(Waiting::run).map_err(MountError::Thread)
    }

    /// Shows a layer at [`Self::layer_path`]. Visible at once, whoever looked before.
    pub fn attach<L: LayerTree>(&self, slot: Slot, layer: Arc<L>) -> Result<(), AttachError> {
        self.show(slot, Shown::Layer(layer))
    }

    /// Shows a chain of layers as one tree at [`Self::layer_path`]. Each of its layers must be attached in its slot as long
    /// as the chain is.
    pub fn attach_chain(&self, slot: Slot, chain: Arc<Chain>) -> Result<(), AttachError> {
        self.show(slot, Shown::Chain(chain))
    }

    fn show(&self, slot: Slot, shown: Shown) -> Result<(), AttachError> {
        if self.shared.layers.attach(slot, shown) { Ok(()) } else { Err(AttachError::SlotUsed(slot)) }
    }

    /// Takes a layer or a chain away; false if there was none. Its directory is gone at once; what is still open in it gives
    /// ESTALE for what the kernel does not have. The kernel's memory of it is freed soon after.
    pub fn detach(&self, slot: Slot) -> bool {
        let detached = self.shared.layers.detach(slot).is_some();
        if detached {
            self.forgetter.forget(slot);
        }
        detached
    }

    /// Makes the kernel ask again for a file's bytes: those that it has may be wrong. Soon, not at once.
    pub fn forget_pages(&self, slot: Slot, file: NodeId) {
        self.forgetter.forget_pages(slot, file);
    }

    /// Whether a layer or a chain is in the slot.
    pub fn is_attached(&self, slot: Slot) -> bool {
        self.shared.layers.now().shown(slot).is_ok()
    }

    /// Where the layer or the chain in a slot is, to be named in `lowerdir=`. Never touch it from this process: a thread that does
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

    /// The descriptor of `/dev/fuse` and what is known of it: all that a successor needs to go on serving.
    pub fn hand_over(&self) -> (BorrowedFd<'_>, ConnectionState) {
        (self.device.as_fd(), self.state)
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

// === impl Waiting ===

impl Waiting {
    fn run(self) -> std::io::Result<()> {
        let Self { session, resume, end } = self;
        if let Some(device) = resume {
            match handshake::resend(&device) {
                Ok(true) => {}
                Ok(false) => tracing::warn!(
                    "this kernel (before 6.9) does not repeat requests: those that the predecessor had in hand stay \
                     unanswered"
                ),
                Err(error) => tracing::warn!(%error, "the kernel does not repeat the predecessor's requests"),
            }
        }
        std::thread::Builder::new().name("fuse-session".into()).spawn(move || {
            match session.run() {
                Ok(()) => tracing::debug!("FUSE connection ended"),
                Err(error) => tracing::error!(%error, "FUSE connection failed"),
            }
            drop::<mpsc::Sender<()>>(end);
        })?;
        Ok(())
    }
}

fn config(shared: &Shared) -> fuser::Config {
    let mut config = fuser::Config::default();
    config.acl = fuser::SessionACL::All;
    config.n_threads = Some(shared.options.threads.max(1));
    // Cloned descriptors would die with the process, and the requests on them; this one can be handed over.
    config.clone_fd = false;
    config
}

/// Whether the kernel still has a connection behind the descriptor.
fn is_alive(device: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(device.as_fd(), PollFlags::empty())];
    let asked = poll(&mut polled, PollTimeout::ZERO);
    let [polled] = polled;
    asked.is_ok() && !polled.revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("mountpoint", &self.mountpoint).finish_non_exhaustive()
    }
}
