//! Asks an index everything that can be asked, whatever it answers.

use std::hint::black_box;

#[cfg(test)]
use crate as estargz;
use estargz::{ChunkId, Index, NodeId};

/// Directory entries to look at: a damaged index may list one table in every directory.
const MOST: u32 = 100_000;

/// Touches every table through every accessor. Neither panics nor takes long, also if the index is nonsense.
pub(crate) fn touch_everything<B: AsRef<[u8]>>(index: &Index<B>) {
    black_box((
        index.blob_size(),
        index.toc_offset(),
        index.content_len(),
        index.file_bytes(),
        index.prefetch_end(),
    ));
    black_box((index.toc_digest(), index.has_posix_acl(), format!("{index:?}")));
    let mut left = MOST;
    // One more than there are: it must be refused.
    for id in (1..=index.node_count().saturating_add(1)).filter_map(NodeId::new) {
        touch_node(index, id, &mut left);
    }
    for id in 0..=index.chunk_count() {
        let chunk = index.chunk(ChunkId(id));
        assert!(chunk.is_err() || id < index.chunk_count());
        let _ = black_box(chunk.map(|chunk| index.chunks_in(chunk.member_start..chunk.member_end)));
    }
}

fn touch_node<B: AsRef<[u8]>>(index: &Index<B>, id: NodeId, left: &mut u32) {
    let Ok(node) = index.node(id) else { return };
    assert!(id.get() <= index.node_count());
    black_box((
        node.kind(),
        node.perm(),
        node.uid(),
        node.gid(),
        node.nlink(),
        node.rdev_major(),
        node.rdev_minor(),
    ));
    black_box((node.size(), node.mtime(), node.is_opaque(), node.parent(), format!("{node:?}")));
    let _ = black_box(index.path(id));
    let _ = black_box(index.symlink_target(id));
    let _ = black_box(index.lookup(id, b"a"));
    for entry in index.entries(id, 0).into_iter().flatten() {
        if *left == 0 {
            break;
        }
        *left -= 1;
        if let Ok(entry) = entry {
            let _ = black_box(index.lookup(id, entry.name));
        }
    }
    for xattr in index.xattrs(id).into_iter().flatten().take(100) {
        let _ = black_box(xattr.and_then(|(name, _)| index.xattr(id, name)));
    }
    if let Ok(file) = index.file(id) {
        for range in [0..file.size, file.size / 2..u64::MAX, u64::MAX - 1..u64::MAX] {
            index.chunks_of(id, range).into_iter().flatten().take(100).for_each(|id| {
                let _ = black_box(index.chunk(id));
            });
        }
    }
}
