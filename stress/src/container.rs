//! Containers that read their image's files, compare them with the sums that its Debian packages came with, and start
//! programs.

use std::{fs, path::PathBuf, sync::atomic::Ordering::Relaxed, time::Duration};

use anyhow::Result;
use testkit::sample_image::DEBIAN_SUMS;

use crate::{
    ctr::PLUGIN,
    images::STAYS,
    judge::{HANG, Judge, Moment},
    node::Node,
};

/// What a container runs behind [`DEBIAN_SUMS`]; its argument is a seed. Times are on the clock that we have as well.
const PROGRAM: &str = "\
import hashlib, os, random, subprocess, sys, time
pick, paths, count = random.Random(int(sys.argv[1])), list(sums), 0
clock = lambda: time.clock_gettime(time.CLOCK_MONOTONIC)
def digest(path):
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        md5 = hashlib.md5()
        while piece := os.read(file, 1 << 20):
            md5.update(piece)
        return md5.hexdigest()
    finally:
        os.close(file)
subprocess.run(['/bin/true'], check=True)
print('read', 0, flush=True)
while True:
    path, began = pick.choice(paths), clock()
    try:
        if digest(path) != sums[path]:
            print('wrong', path, flush=True)
    except OSError as error:
        print('refused', began, clock(), error.errno, path, flush=True)
        time.sleep(0.2)
        continue
    count += 1
    if clock() - began > 1 or count % 10 == 0:
        print('read', count, clock() - began, flush=True)
    if count % 50 == 0:
        subprocess.run(['/bin/true'], check=True)
    time.sleep(0.005)
";

/// A container that reads.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    log: PathBuf,
    judged: usize,
    count: u64,
    heard: Moment,
}

// === impl Container ===

impl Container {
    /// Starts one.
    pub(crate) fn start(node: &Node, number: u64, seed: u64) -> Result<Self> {
        let name = node.container_name(&number.to_string());
        let log = node.scratch.join(format!("container-{number}.log"));
        let (uri, image) = (format!("file://{}", log.display()), node.images.reference(STAYS));
        let run = ["run", "-d", "--log-uri", &uri, "--snapshotter", PLUGIN, &image, &name];
        let seed = (seed ^ number).to_string();
        let program = format!("{DEBIAN_SUMS}{PROGRAM}");
        node.ctr.run(&[&run[..], &["/usr/bin/python3", "-c", &program, &seed]].concat())?;
        Ok(Self { name, log, judged: 0, count: 0, heard: Moment::now() })
    }

    /// Whether it has begun to read.
    pub(crate) fn reads(&self) -> bool {
        fs::read_to_string(&self.log).is_ok_and(|log| log.contains("read 0"))
    }

    /// Judges what it said since the last time.
    pub(crate) fn listen(&mut self, judge: &Judge) {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let complete = log.rfind('\n').map_or(0, |end| end + 1);
        let new = log.get(self.judged..complete).unwrap_or_default();
        self.judged = complete;
        for line in new.lines() {
            self.heard = Moment::now();
            let words: Vec<_> = line.split(' ').collect();
            match *words.as_slice() {
                ["read", count] | ["read", count, _] => self.read(count, words.get(2), judge),
                ["refused", began, ended, errno, path] => refused((began, ended), errno, path, judge),
                _ => judge.fail(format!("container {}: {}", self.name, rest(&log, line))),
            }
        }
        let silent = Moment::now().0 - self.heard.0;
        if silent > HANG.as_secs_f64() {
            judge.fail(format!("container {} says nothing for {silent:.0} s", self.name));
        }
    }

    fn read(&mut self, count: &str, took: Option<&&str>, judge: &Judge) {
        let count = count.parse().unwrap_or(self.count);
        judge.counts.container_reads.fetch_add(count - self.count.min(count), Relaxed);
        self.count = count;
        let seconds = took.and_then(|took| took.parse().ok()).unwrap_or(0.0);
        let micros = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_micros();
        judge.counts.longest_read_micros.fetch_max(u64::try_from(micros).unwrap_or(u64::MAX), Relaxed);
    }
}

fn refused((began, ended): (&str, &str), errno: &str, path: &str, judge: &Judge) {
    judge.counts.refused.fetch_add(1, Relaxed);
    let moment = |text: &str| Moment(text.parse().unwrap_or(0.0));
    let allowed = judge.read_may_fail(moment(began), moment(ended));
    if errno != nix::libc::EIO.to_string() || !allowed {
        judge.fail(format!("a container's read of {path} failed with error {errno}"));
    }
}

/// What a log says from `line` on.
fn rest<'a>(log: &'a str, line: &str) -> &'a str {
    log.find(line).and_then(|at| log.get(at..)).unwrap_or_default()
}
