//! Answers to what the kernel asks.
//!
//! This module turns fuser's calls into questions to the modules below it, and their answers into replies. What would
//! change something is refused with EROFS; what the kernel does better alone is answered ENOSYS once, after which it
//! never asks again: opening, flushing, locks, polling, seeking to holes.

mod attr;
mod directory;
mod read;
mod refused;
mod xattr;

use std::{
    ffi::OsStr,
    ops::ControlFlow,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use self::{
    attr::{FOREVER, NOT_AT_ALL},
    directory::Found,
    refused::answered_with,
};
use crate::{
    Failure, MountOptions, Totals,
    counters::{LiveCounters, count},
    ino::Inode,
    shown::Shown,
    table::LayerTable,
    under_way::UnderWay,
};

/// Generations tell inodes apart whose number was given out again. Ours never are.
const GENERATION: Generation = Generation(0);

/// Largest read or write in one message: 256 pages, the kernel's own limit (`fs.fuse.max_pages_limit`).
const MAX_MESSAGE: u32 = 1 << 20;

/// What we ask the kernel for, where it has it.
const WANTED: [InitFlags; 11] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_PARALLEL_DIROPS,
    // Every listing brings the attributes: overlayfs reads a whole directory before anyone asks for the first
    // attribute, so that the kernel's guess (READDIRPLUS_AUTO) would come too late.
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_NO_OPEN_SUPPORT,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    // Zero-message opendir lets the kernel keep every listing, the root's too. With this flag it asks for the
    // directory's time before it uses one; in layers it has the time already.
    InitFlags::FUSE_AUTO_INVAL_DATA,
    InitFlags::FUSE_EXPORT_SUPPORT,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_HAS_RESEND,
];

/// What all threads and tasks of a connection use.
pub(crate) struct Shared {
    pub(crate) layers: LayerTable,
    pub(crate) under_way: UnderWay,
    pub(crate) counters: LiveCounters,
    pub(crate) options: MountOptions,
    pub(crate) runtime: Handle,
}

/// The file system, as fuser calls it.
pub(crate) struct Server {
    shared: Arc<Shared>,
}

// === impl Shared ===

impl Shared {
    /// The error number for a failure, which is counted if it is a fault.
    fn errno(&self, failure: &Failure) -> Errno {
        if failure.is_fault() {
            count(&self.counters.errors);
        }
        failure.errno()
    }
}

// === impl Server ===

impl Server {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn attributes(&self, inode: Inode) -> Result<FileAttr, Failure> {
        let layers = self.shared.layers.now();
        let Inode::Layer(slot, node) = inode else { return Ok(attr::of_root(&layers)) };
        Ok(attr::of_node(inode, &layers.shown(slot)?.attributes(node)?))
    }

    /// Size of what is in the slot, or of all layers.
    fn totals(&self, inode: Inode) -> Result<Totals, Failure> {
        let layers = self.shared.layers.now();
        if let Inode::Layer(slot, _) = inode {
            return layers.shown(slot).map(Shown::totals);
        }
        Ok(layers.layers().map(|layer| layer.totals()).fold(Totals::default(), Totals::plus))
    }

    fn refuse(&self) -> Errno {
        count(&self.shared.counters.refused);
        self.shared.errno(&Failure::ReadOnly)
    }

    fn leave_to_kernel(&self) -> Errno {
        self.shared.errno(&Failure::LeftToKernel)
    }
}

/// A copy of something in a mapped file. The kernel takes a reply from pages that are present even while this process is
/// being killed; for one that it would have to bring in first, it would fail the request.
fn present(mapped: &[u8]) -> Vec<u8> {
    mapped.to_vec()
}

fn inode(number: INodeNo) -> Result<Inode, Failure> {
    Inode::from_number(number).ok_or(Failure::Stale)
}

/// How long the kernel may keep what it learns about an inode.
fn time_to_live(inode: Inode) -> Duration {
    match inode {
        Inode::Root => NOT_AT_ALL,
        Inode::Layer(..) => FOREVER,
    }
}

impl fuser::Filesystem for Server {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Asking for the impossible is how fuser tells what was offered.
        let max_readahead = config.set_max_readahead(u32::MAX).err().unwrap_or(u32::MAX);
        for flag in WANTED {
            if config.add_capabilities(flag).is_err() {
                tracing::info!(?flag, "kernel does not have this FUSE feature");
            }
        }
        let limits = config.set_max_write(MAX_MESSAGE).and(config.set_max_readahead(max_readahead));
        let limits = limits.map_err(|limit| format!("size limit {limit}"));
        // A read that waits for the network is a background request: none may ever wait for another.
        let queues = config.set_max_background(u16::MAX).and(config.set_congestion_threshold(u16::MAX));
        let queues = queues.map_err(|limit| format!("queue limit {limit}"));
        limits.and(queues).map(drop).map_err(std::io::Error::other)
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        count(&self.shared.counters.lookups);
        match inode(parent).and_then(|parent| self.find(parent, name)) {
            Ok(Found::Node(attr)) => reply.entry(&FOREVER, &attr, GENERATION),
            Ok(Found::Slot(attr)) => {
                let attr_ttl = Inode::from_number(attr.ino).map_or(NOT_AT_ALL, time_to_live);
                reply.entry_with_ttls(&attr_ttl, &NOT_AT_ALL, &attr, GENERATION);
            }
            Ok(Found::Nothing) => reply.entry(&FOREVER, &attr::of_nothing(), GENERATION),
            Err(failure) => reply.error(self.shared.errno(&failure)),
        }
    }

    fn forget(&self, _req: &Request, _ino: INodeNo, _nlookup: u64) {}

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        count(&self.shared.counters.getattrs);
        match inode(ino).and_then(|inode| Ok((time_to_live(inode), self.attributes(inode)?))) {
            Ok((ttl, attr)) => reply.attr(&ttl, &attr),
            Err(failure) => reply.error(self.shared.errno(&failure)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        count(&self.shared.counters.readlinks);
        let layers = self.shared.layers.now();
        let target = inode(ino).and_then(|inode| match inode {
            Inode::Root => Err(Failure::Stale),
            Inode::Layer(slot, node) => layers.layer(slot)?.link_target(node),
        });
        match target {
            Ok(target) => reply.data(&present(target)),
            Err(failure) => reply.error(self.shared.errno(&failure)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.answer_read(inode(ino), offset, size, reply);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        count(&self.shared.counters.readdirs);
        let listed = inode(ino).and_then(|dir| {
            self.list(dir, offset, &mut |line| {
                let kind = attr::file_type(line.kind);
                let full = reply.add(line.inode.number(), line.cookie, kind, line.name);
                if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(failure) => reply.error(self.shared.errno(&failure)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        count(&self.shared.counters.readdirpluses);
        let listed = inode(ino).and_then(|dir| {
            let ttl = time_to_live(dir);
            let mut failed = None;
            self.list(dir, offset, &mut |line| {
                match self.attributes(line.inode) {
                    Ok(attr) if !reply.add(attr.ino, line.cookie, line.name, &ttl, &attr, GENERATION) => {
                        return ControlFlow::Continue(());
                    }
                    Ok(_) => {}
                    // The layer was detached since the listing began.
                    Err(Failure::Stale) => return ControlFlow::Continue(()),
                    Err(failure) => failed = Some(failure),
                }
                ControlFlow::Break(())
            })?;
            failed.map_or(Ok(()), Err)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(failure) => reply.error(self.shared.errno(&failure)),
        }
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        count(&self.shared.counters.statfses);
        match inode(ino).and_then(|inode| self.totals(inode)) {
            // Full, as every read-only file system is.
            Ok(totals) => reply.statfs(totals.bytes.div_ceil(4096), 0, 0, totals.nodes, 0, 4096, 255, 4096),
            Err(failure) => reply.error(self.shared.errno(&failure)),
        }
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        count(&self.shared.counters.getxattrs);
        if !self.shared.options.attributes {
            return reply.error(self.leave_to_kernel());
        }
        let mut reply = Some(reply);
        let answered = inode(ino).and_then(|inode| {
            self.xattr(inode, name, |value| {
                if let Some(reply) = reply.take() {
                    self.shared.answer_sized(size, value, reply);
                }
            })
        });
        if let (Err(failure), Some(reply)) = (answered, reply) {
            reply.error(self.shared.errno(&failure));
        }
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        count(&self.shared.counters.listxattrs);
        match inode(ino).and_then(|inode| self.xattr_names(inode, req.uid() == 0)) {
            Ok(names) => self.shared.answer_sized(size, &names, reply),
            Err(failure) => reply.error(self.shared.errno(&failure)),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        count(&self.shared.counters.opens);
        reply.error(self.leave_to_kernel());
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        count(&self.shared.counters.opendirs);
        reply.error(self.leave_to_kernel());
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        count(&self.shared.counters.flushes);
        reply.error(self.leave_to_kernel());
    }

    answered_with! { refuse:
        setattr(
            INodeNo, Option<u32>, Option<u32>, Option<u32>, Option<u64>, Option<TimeOrNow>, Option<TimeOrNow>,
            Option<SystemTime>, Option<FileHandle>, Option<SystemTime>, Option<SystemTime>, Option<SystemTime>,
            Option<BsdFileFlags>
        ) -> ReplyAttr;
        mknod(INodeNo, &OsStr, u32, u32, u32) -> ReplyEntry;
        mkdir(INodeNo, &OsStr, u32, u32) -> ReplyEntry;
        unlink(INodeNo, &OsStr) -> ReplyEmpty;
        rmdir(INodeNo, &OsStr) -> ReplyEmpty;
        symlink(INodeNo, &OsStr, &Path) -> ReplyEntry;
        rename(INodeNo, &OsStr, INodeNo, &OsStr, RenameFlags) -> ReplyEmpty;
        link(INodeNo, INodeNo, &OsStr) -> ReplyEntry;
        write(INodeNo, FileHandle, u64, &[u8], WriteFlags, OpenFlags, Option<LockOwner>) -> ReplyWrite;
        setxattr(INodeNo, &OsStr, &[u8], i32, u32) -> ReplyEmpty;
        removexattr(INodeNo, &OsStr) -> ReplyEmpty;
        create(INodeNo, &OsStr, u32, u32, i32) -> ReplyCreate;
        fallocate(INodeNo, FileHandle, u64, u64, i32) -> ReplyEmpty;
        copy_file_range(INodeNo, FileHandle, u64, INodeNo, FileHandle, u64, u64, CopyFileRangeFlags) -> ReplyWrite;
    }

    answered_with! { leave_to_kernel:
        access(INodeNo, AccessFlags) -> ReplyEmpty;
        fsync(INodeNo, FileHandle, bool) -> ReplyEmpty;
        fsyncdir(INodeNo, FileHandle, bool) -> ReplyEmpty;
        getlk(INodeNo, FileHandle, LockOwner, u64, u64, i32, u32) -> ReplyLock;
        setlk(INodeNo, FileHandle, LockOwner, u64, u64, i32, u32, bool) -> ReplyEmpty;
        bmap(INodeNo, u32, u64) -> ReplyBmap;
        ioctl(INodeNo, FileHandle, IoctlFlags, u32, &[u8], u32) -> ReplyIoctl;
        poll(INodeNo, FileHandle, PollNotifier, PollEvents, PollFlags) -> ReplyPoll;
        lseek(INodeNo, FileHandle, i64, i32) -> ReplyLseek;
    }
}
