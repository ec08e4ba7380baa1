//! The one place where failures become error numbers.

use std::time::Duration;

use estargz::{IndexError, Kind};
use fuser::Errno;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a request was not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The directory has no such name.
    #[error("no such name")]
    NoSuchName,
    /// The layer was detached, or the inode number was never given out.
    #[error("inode is not of an attached layer")]
    Stale,
    /// The node has no such attribute.
    #[error("no such attribute")]
    NoSuchAttribute,
    /// The caller's buffer is smaller than the attribute.
    #[error("buffer is smaller than the attribute")]
    BufferTooSmall,
    /// The request would change a layer.
    #[error("layers are read-only")]
    ReadOnly,
    /// The operation is one that the kernel does better alone.
    #[error("left to the kernel")]
    LeftToKernel,
    /// The layer's metadata did not answer.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The bytes could not be had, or were not the right ones.
    #[error("the bytes of a file cannot be had")]
    Read(#[source] Cause),
    /// Fewer bytes came than the file has: handing them on would make the kernel shorten the file.
    #[error("read gave {got} bytes of {wanted}")]
    ShortRead {
        /// Bytes that came.
        got: usize,
        /// Bytes that the file has there.
        wanted: usize,
    },
    /// A listing came to nothing for too long.
    #[error("more than {0} names in a row are whiteouts")]
    TooManyHidden(usize),
    /// The bytes did not come in time.
    #[error("read was not answered within {0:?}")]
    TimedOut(Duration),
}

// === impl Failure ===

impl Failure {
    /// The error number that the caller gets.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::NoSuchName => Errno::ENOENT,
            Self::Stale | Self::Index(IndexError::NoSuchNode(_)) => Errno::ESTALE,
            Self::NoSuchAttribute => Errno::ENODATA,
            Self::BufferTooSmall => Errno::ERANGE,
            Self::ReadOnly => Errno::EROFS,
            Self::LeftToKernel => Errno::ENOSYS,
            Self::Index(IndexError::WrongKind { wanted, .. }) => match wanted {
                Kind::Dir => Errno::ENOTDIR,
                Kind::Reg | Kind::Symlink | Kind::Char | Kind::Block | Kind::Fifo => Errno::EINVAL,
            },
            Self::Index(
                IndexError::NotAnIndex
                | IndexError::OtherVersion { .. }
                | IndexError::NoSuchChunk(_)
                | IndexError::Damaged { .. },
            )
            | Self::Read(_)
            | Self::ShortRead { .. }
            | Self::TooManyHidden(_)
            | Self::TimedOut(_) => Errno::EIO,
        }
    }

    /// Whether this is a fault that someone should look into, not an ordinary answer.
    pub(crate) fn is_fault(&self) -> bool {
        self.errno().code() == libc::EIO
    }
}

#[cfg(test)]
mod tests {
    use estargz::{ChunkId, NodeId};

    use super::*;

    #[test]
    fn every_failure_has_the_number_that_a_local_file_system_gives() {
        let node = NodeId::ROOT;
        let wrong = |wanted| Failure::Index(IndexError::WrongKind { node, wanted });
        let table = [
            (Failure::NoSuchName, libc::ENOENT),
            (Failure::Stale, libc::ESTALE),
            (Failure::NoSuchAttribute, libc::ENODATA),
            (Failure::BufferTooSmall, libc::ERANGE),
            (Failure::ReadOnly, libc::EROFS),
            (Failure::LeftToKernel, libc::ENOSYS),
            (Failure::TooManyHidden(9), libc::EIO),
            (Failure::Index(IndexError::NoSuchNode(node)), libc::ESTALE),
            (Failure::Index(IndexError::NoSuchChunk(ChunkId(1))), libc::EIO),
            (Failure::Index(IndexError::NotAnIndex), libc::EIO),
            (Failure::Index(IndexError::OtherVersion { found: 9 }), libc::EIO),
            (Failure::Index(IndexError::Damaged { what: "x" }), libc::EIO),
            (wrong(Kind::Dir), libc::ENOTDIR),
            (wrong(Kind::Reg), libc::EINVAL),
            (wrong(Kind::Symlink), libc::EINVAL),
            (Failure::Read("refused".into()), libc::EIO),
            (Failure::ShortRead { got: 1, wanted: 2 }, libc::EIO),
            (Failure::TimedOut(Duration::from_secs(1)), libc::EIO),
        ];
        for (failure, number) in table {
            assert_eq!(failure.errno().code(), number, "{failure}");
            assert_eq!(failure.is_fault(), number == libc::EIO, "{failure}");
        }
    }
}
