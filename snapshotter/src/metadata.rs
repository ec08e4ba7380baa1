//! The snapshots' metadata, with the semantics of containerd's own store (`core/snapshots/storage/bolt.go`).
//!
//! One redb file. Every change is one write transaction, on disk when it returns; a transaction that fails changes
//! nothing. Readers see the last committed state and never wait for a writer. Directories are someone else's: a caller
//! that needs one makes it inside the transaction that creates the snapshot.

mod change;
mod record;
#[cfg(test)]
mod tests;
mod view;

use std::{fs, io, path::Path};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::error::SnapshotError;
pub use change::{Change, Changing};
pub use record::{Kind, Record, Timestamp};
pub use view::{Below, InUse, View};

/// Name to record.
const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");
/// (the parent's id, the child's id) to the child's name. The parent's id is 0 where there is none.
const CHILDREN: TableDefinition<'_, (u64, u64), &str> = TableDefinition::new("children");
/// Numbers of the whole store.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// The layout of the tables; a change of it that older daemons must not touch counts it up.
const SCHEMA: u64 = 1;
/// In `NUMBERS`: the layout.
const SCHEMA_KEY: &str = "schema";
/// In `NUMBERS`: the id of the last snapshot that was created.
const LAST_ID_KEY: &str = "last-id";
/// The page cache. Ten thousand snapshots with full labels take some 20 MB; what is hot is the top of two trees.
const CACHE_BYTES: usize = 4 << 20;

/// The store.
#[derive(Debug)]
pub struct Metadata {
    database: Database,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database refused.
    #[error("cannot open the snapshot metadata {path}: {source}")]
    Database {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// A newer daemon wrote it.
    #[error(
        "the snapshot metadata {path} has layout {found}, this daemon knows {SCHEMA}: start the daemon that wrote it"
    )]
    Schema {
        /// The file.
        path: String,
        /// Its layout.
        found: u64,
    },
}

// === impl Metadata ===

impl Metadata {
    /// Opens the store in the file `path`, or makes it. `used_ids` is the highest id that something outside the store
    /// still carries: ids given from now on are above it.
    ///
    /// # Errors
    /// The file cannot be opened, is in use, or was written by a newer daemon.
    pub fn open(path: &Path, used_ids: u64) -> Result<Self, OpenError> {
        Self::open_with(path, used_ids, |builder| {
            if !path.exists() {
                make(builder, path)?;
            }
            builder.create(path)
        })
    }

    fn open_with(
        path: &Path,
        used_ids: u64,
        create: impl FnOnce(&mut Builder) -> Result<Database, DatabaseError>,
    ) -> Result<Self, OpenError> {
        let failed = |source: redb::Error| OpenError::Database {
            path: path.display().to_string(),
            source: Box::new(source),
        };
        let open = || -> Result<(Database, Option<u64>), redb::Error> {
            let database = create(Database::builder().set_cache_size(CACHE_BYTES))?;
            let transaction = database.begin_write()?;
            let found = {
                transaction.open_table(SNAPSHOTS)?;
                transaction.open_table(CHILDREN)?;
                let mut numbers = transaction.open_table(NUMBERS)?;
                let found = numbers.get(SCHEMA_KEY)?.map(|number| number.value());
                numbers.insert(SCHEMA_KEY, found.unwrap_or(SCHEMA))?;
                let last = numbers.get(LAST_ID_KEY)?.map_or(0, |number| number.value());
                numbers.insert(LAST_ID_KEY, last.max(used_ids))?;
                found
            };
            transaction.commit()?;
            Ok((database, found))
        };
        let (database, found) = open().map_err(failed)?;
        match found {
            None | Some(SCHEMA) => Ok(Self { database }),
            Some(found) => Err(OpenError::Schema { path: path.display().to_string(), found }),
        }
    }

    /// The state as of now, however long it is looked at.
    ///
    /// # Errors
    /// The database failed.
    pub fn view(&self) -> Result<View, SnapshotError> {
        let transaction = self.database.begin_read()?;
        Ok(View::new(transaction.open_table(SNAPSHOTS)?, transaction.open_table(CHILDREN)?))
    }

    /// Runs `look` while nothing can change the store.
    ///
    /// # Errors
    /// Those of `look`, or the database failed.
    pub fn frozen<T>(
        &self,
        look: impl FnOnce(&View) -> Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        let transaction = self.database.begin_write()?;
        let result = self.view().and_then(|view| look(&view));
        transaction.abort()?;
        result
    }

    /// Runs `change` in the one write transaction there is at a time. What it did is on disk when this returns `Ok`,
    /// and undone when this returns an error.
    ///
    /// # Errors
    /// Those of `change`, or the database failed.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Change<'_>) -> Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        // Immediate durability is the default: a commit returns after its pages were synced.
        let transaction = self.database.begin_write()?;
        let result = {
            let mut tables = Change::new(
                transaction.open_table(SNAPSHOTS)?,
                transaction.open_table(CHILDREN)?,
                transaction.open_table(NUMBERS)?,
            );
            change(&mut tables)
        };
        match result {
            Ok(value) => {
                transaction.commit()?;
                Ok(value)
            }
            Err(error) => {
                transaction.abort()?;
                Err(error)
            }
        }
    }
}

/// Makes an empty database under another name first: the file gets its length before the mark by which it is known, and one
/// that a crash left without would be refused for ever. The name is on disk when this returns.
fn make(builder: &Builder, path: &Path) -> Result<(), DatabaseError> {
    let new = path.with_extension("new");
    let absent = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    fs::remove_file(&new).or_else(absent).map_err(redb::StorageError::Io)?;
    drop(builder.create(&new)?);
    let named = fs::rename(&new, path).and_then(|()| sync_parent(path));
    Ok(named.map_err(redb::StorageError::Io)?)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
}
