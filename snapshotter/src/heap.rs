//! The C library's heap, kept small.
//!
//! glibc gives each thread its own arena, up to eight for each processor, and an arena that once was full goes on taking
//! memory: with the daemon's dozens of threads, most of which allocate now and then, that was four times what was in use
//! (`cargo xtask bench memory`). Two arenas do: what is large is inflated, hashed and written outside of the heap's
//! locks. Blocks from 128 KiB on are mapped each by itself for good (the threshold would otherwise grow with the first
//! of them that is freed), so that a chunk's memory goes back when the chunk is done.
#![allow(unsafe_code)]

use std::{io, thread, time::Duration};

use nix::time::{ClockId, clock_gettime};

/// Arenas of the heap.
const ARENAS: libc::c_int = 2;
/// Blocks of this many bytes and more are mapped each by itself.
const MAPPED_LEN: libc::c_int = 128 << 10;
/// Free bytes at an arena's end that are kept for the next block.
const KEPT_LEN: libc::c_int = 128 << 10;
/// How often it is looked whether there is something to trim. While many small chunks are read two thirds of the arenas are
/// free, between what lives long (`malloc_stats(3)`), and are filled anew by the next ones.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Processor time since the heap was last trimmed from which on it is worth while.
const BUSY: Duration = Duration::from_millis(50);

/// Must be called before other threads are started: they take the arenas that are there.
pub(crate) fn bound() {
    for (parameter, value) in [
        (libc::M_ARENA_MAX, ARENAS),
        (libc::M_MMAP_THRESHOLD, MAPPED_LEN),
        (libc::M_TRIM_THRESHOLD, KEPT_LEN),
    ] {
        // SAFETY: sets a number in the allocator; no other thread runs yet. A refusal leaves what was.
        let _ = unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives free memory within the heap back to the system now and then, on a thread of its own, while something is done
/// in this process.
pub(crate) fn trim_regularly() -> io::Result<()> {
    thread::Builder::new().name("heap".to_owned()).spawn(|| {
        let mut trimmed = Duration::ZERO;
        loop {
            thread::sleep(LOOK_EVERY);
            if processor_time().saturating_sub(trimmed) > BUSY {
                // SAFETY: may be called at any time by any thread; it only gives back pages that are free.
                unsafe { libc::malloc_trim(0) };
                trimmed = processor_time();
            }
        }
    })?;
    Ok(())
}

/// What this process has had of the processors.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use std::{fs, hint::black_box};

    use super::*;

    /// Resident memory that is not that of files, from `/proc/self/statm` (proc_pid_statm(5)): pages in all, resident ones,
    /// those of files among them.
    fn anonymous_bytes() -> u64 {
        let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = |field: usize| {
            text.split(' ').nth(field).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0)
        };
        pages(1).saturating_sub(pages(2)) * PAGE
    }

    /// Of the processors that this runs on; where pages are larger, trimming only begins later.
    const PAGE: u64 = 4096;

    #[test]
    fn large_blocks_go_back_at_once_and_small_ones_when_trimmed() {
        bound();
        let before = anonymous_bytes();
        let blocks: Vec<_> = (0..64).map(|_| black_box(vec![1u8; 1 << 20])).collect();
        let full = anonymous_bytes();
        assert!(full >= before + (60 << 20), "{before} {full}");
        drop(blocks);
        let after = anonymous_bytes();
        assert!(after < before + (8 << 20), "{before} {after}");
        // One in a hundred stays, at the end too: what is free lies between.
        let small: Vec<_> = (0..1_000_000).map(|_| Box::new([1u8; 64])).collect();
        let kept: Vec<_> = small.into_iter().step_by(100).collect();
        let scattered = anonymous_bytes();
        // SAFETY: as in `trim_regularly`.
        unsafe { libc::malloc_trim(0) };
        assert!(anonymous_bytes() < scattered, "{scattered}");
        drop(kept);
    }
}
