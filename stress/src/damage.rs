//! Bits on disk that flip. What is on disk is compared again when somebody asks for it (`starling cache verify`): then
//! the chunk is dropped, and fetched again. Nobody reads the image meanwhile, for until then the disk is believed.

use std::{fs::File, os::unix::fs::FileExt, path::Path, sync::atomic::Ordering::Relaxed, time::Duration};

use anyhow::Result;

use crate::{
    judge::Judge,
    node::Node,
    readers::{Doing, read_all},
};

/// Reads the image, flips a bit of it on disk, has it found, and reads again.
pub(crate) fn flip(node: &Node, key: &str, place: u64, mounted: &Path, judge: &Judge, doing: &Doing) {
    let truth = &node.images.broken_truth;
    read_all(mounted, truth, judge, doing);
    match flip_bit(node, key, place) {
        Ok(()) => judge.counts.flips.fetch_add(1, Relaxed),
        Err(error) => return judge.fail(format!("cannot flip a bit: {error:#}")),
    };
    // A daemon that is killed meanwhile has dropped what it found, and does not tell us.
    for _ in 0..200 {
        match node.admin.verify(key) {
            Ok(0) => return read_all(mounted, truth, judge, doing),
            Ok(found) => drop(judge.counts.damage_found.fetch_add(found, Relaxed)),
            Err(_) => {}
        }
        if !judge.pause(Duration::from_millis(100)) {
            // Whoever reads next has to find it mended.
            while node.admin.verify(key).is_ok_and(|found| found > 0) {}
            return;
        }
    }
    judge.fail("a damaged layer could not be looked at again for long");
}

fn flip_bit(node: &Node, key: &str, place: u64) -> Result<()> {
    let content = node.root.join("layers").join(key).join("content");
    let content = File::options().read(true).write(true).open(content)?;
    content.sync_all()?;
    let (at, bit) = (place % content.metadata()?.len().max(1), (place >> 32) % 8);
    let mut byte = [0];
    content.read_exact_at(&mut byte, at)?;
    content.write_all_at(&[byte[0] ^ (1 << bit)], at)?;
    content.sync_all()?;
    Ok(())
}
