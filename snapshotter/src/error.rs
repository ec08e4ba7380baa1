//! What can go wrong with a snapshot, and how containerd is told.
//!
//! containerd's client library makes its error classes from gRPC codes, and cuts the class's text from the end of the
//! message. [`Class`] is the one table of both.

use std::{io, path::PathBuf};

use crate::{filters::FilterError, lazy::Unavailable, name::Name};

/// An error of a snapshot operation.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No snapshot has this key or name.
    #[error("snapshot {0:?} does not exist")]
    Missing(Name),
    /// No snapshot has the name that was given as a parent.
    #[error("parent snapshot {0:?} does not exist")]
    MissingParent(Name),
    /// The key or name is taken.
    #[error("snapshot {0:?}")]
    Exists(Name),
    /// There is a committed snapshot for the label `containerd.io/snapshot.ref`: nothing to download.
    #[error("target snapshot {0:?}")]
    TargetExists(String),
    /// A snapshot cannot be made on top of one that may still change.
    #[error("parent {0:?} is not committed snapshot")]
    ParentNotCommitted(Name),
    /// The parent that Commit names may still change.
    #[error("parent {0:?} is not committed")]
    CommitParentNotCommitted(Name),
    /// Only active snapshots can be committed.
    #[error("snapshot {0:?} is not active")]
    NotActive(Name),
    /// Only active snapshots and views have mounts.
    #[error("requested snapshot {0:?} not active or view")]
    NoMounts(Name),
    /// Another snapshot stands on this one.
    #[error("cannot remove snapshot with child: {0:?}")]
    HasChild(Name),
    /// Commit named another parent than the active snapshot has.
    #[error("cannot change parent of active snapshot {0:?} on commit")]
    ParentChanged(Name),
    /// Update named a field that never changes.
    #[error("cannot update {path:?} field on snapshot {name:?}")]
    Immutable {
        /// The field.
        path: String,
        /// The snapshot.
        name: Name,
    },
    /// A name that cannot be stored.
    #[error("a snapshot's name has 1 to 32768 bytes, this one has {0}")]
    BadName(usize),
    /// A label that cannot be used.
    #[error("label {label:?} of snapshot {name:?}: {reason}")]
    BadLabel {
        /// The label's key.
        label: &'static str,
        /// The snapshot.
        name: Name,
        /// What is wrong.
        reason: String,
    },
    /// A request without what it is about.
    #[error("the request has no {0}")]
    Absent(&'static str),
    /// A filter that cannot be parsed.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A remote layer that cannot be served now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The database failed.
    #[error("the snapshot metadata failed: {0}")]
    Storage(#[source] Box<redb::Error>),
    /// A record cannot be read.
    #[error("the metadata of snapshot {name:?} is damaged: {reason}")]
    Damaged {
        /// The snapshot.
        name: Name,
        /// What is wrong with its record.
        reason: String,
    },
    /// A directory of a snapshot could not be made, read or moved.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A bug, which must not end the daemon.
    #[error("the operation panicked: this is a bug in the daemon, and its standard error says where")]
    Panicked,
    /// The daemon is stopping.
    #[error("the operation was abandoned: the daemon is stopping")]
    Stopping,
}

/// containerd's error classes (`errdefs`), those that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// `ErrInvalidArgument`.
    InvalidArgument,
    /// `ErrNotFound`.
    NotFound,
    /// `ErrAlreadyExists`.
    AlreadyExists,
    /// `ErrFailedPrecondition`.
    FailedPrecondition,
    /// `ErrUnavailable`.
    Unavailable,
    /// `ErrDataLoss`.
    DataLoss,
    /// `ErrInternal`.
    Internal,
}

// === impl SnapshotError ===

impl SnapshotError {
    /// An input or output error with what was tried.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// containerd's class for it.
    pub fn class(&self) -> Class {
        match self {
            Self::Missing(_) | Self::MissingParent(_) => Class::NotFound,
            Self::Exists(_) | Self::TargetExists(_) => Class::AlreadyExists,
            Self::ParentNotCommitted(_)
            | Self::ParentChanged(_)
            | Self::Immutable { .. }
            | Self::BadName(_)
            | Self::BadLabel { .. }
            | Self::Absent(_)
            | Self::Filter(_) => Class::InvalidArgument,
            Self::CommitParentNotCommitted(_)
            | Self::NotActive(_)
            | Self::NoMounts(_)
            | Self::HasChild(_) => Class::FailedPrecondition,
            Self::Unavailable(_) | Self::Stopping => Class::Unavailable,
            Self::Damaged { .. } => Class::DataLoss,
            Self::Storage(_) | Self::Io { .. } | Self::Panicked => Class::Internal,
        }
    }
}

impl From<SnapshotError> for tonic::Status {
    fn from(error: SnapshotError) -> Self {
        let class = error.class();
        Self::new(class.code(), format!("{error}: {}", class.suffix()))
    }
}

macro_rules! storage_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for SnapshotError {
            fn from(error: $error) -> Self {
                Self::Storage(Box::new(error.into()))
            }
        }
    )*};
}

storage_errors!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError
);

// === impl Class ===

impl Class {
    /// Every class.
    pub const ALL: [Self; 7] = [
        Self::InvalidArgument,
        Self::NotFound,
        Self::AlreadyExists,
        Self::FailedPrecondition,
        Self::Unavailable,
        Self::DataLoss,
        Self::Internal,
    ];

    /// The gRPC code (`errdefs/pkg/errgrpc`).
    pub const fn code(self) -> tonic::Code {
        self.row().0
    }

    /// The text of containerd's error value, at the end of each message (`errdefs/errors.go`).
    pub const fn suffix(self) -> &'static str {
        self.row().1
    }

    const fn row(self) -> (tonic::Code, &'static str) {
        match self {
            Self::InvalidArgument => (tonic::Code::InvalidArgument, "invalid argument"),
            Self::NotFound => (tonic::Code::NotFound, "not found"),
            Self::AlreadyExists => (tonic::Code::AlreadyExists, "already exists"),
            Self::FailedPrecondition => (tonic::Code::FailedPrecondition, "failed precondition"),
            Self::Unavailable => (tonic::Code::Unavailable, "unavailable"),
            Self::DataLoss => (tonic::Code::DataLoss, "data loss"),
            Self::Internal => (tonic::Code::Internal, "internal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_with_the_class_that_containerd_cuts_off() {
        let status = tonic::Status::from(SnapshotError::TargetExists("sha256:ab".into()));
        assert_eq!(status.code(), tonic::Code::AlreadyExists);
        assert_eq!(status.message(), r#"target snapshot "sha256:ab": already exists"#);

        let status = tonic::Status::from(SnapshotError::HasChild("a".into()));
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert!(status.message().contains("remove") && status.message().ends_with(": failed precondition"));
    }

    /// Rows of `statusFromError` and the texts of `errdefs/errors.go`.
    #[test]
    fn the_table_is_that_of_errdefs() {
        use tonic::Code;
        let expected = [
            (Class::InvalidArgument, Code::InvalidArgument, "invalid argument"),
            (Class::NotFound, Code::NotFound, "not found"),
            (Class::AlreadyExists, Code::AlreadyExists, "already exists"),
            (Class::FailedPrecondition, Code::FailedPrecondition, "failed precondition"),
            (Class::Unavailable, Code::Unavailable, "unavailable"),
            (Class::DataLoss, Code::DataLoss, "data loss"),
            (Class::Internal, Code::Internal, "internal"),
        ];
        assert_eq!(Class::ALL.map(|class| (class, class.code(), class.suffix())), expected);
    }
}
