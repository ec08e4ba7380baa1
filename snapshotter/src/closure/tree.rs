//! The tree that all layers of an image make, looked up as overlayfs shows it.

use std::sync::Arc;

use estargz::{Kind, NodeId};
use store::Layer;

/// Links that are followed before it is a loop, as in Linux.
const MOST_LINKS: usize = 40;
/// Names of one path with all its links.
const MOST_STEPS: usize = 4096;

/// All layers, seen as one tree.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    /// The highest first.
    layers: Vec<(usize, &'a Layer)>,
}

/// A regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Found {
    /// The number of its layer, the lowest first.
    pub(super) layer: usize,
    pub(super) node: NodeId,
}

/// The directories of the layers that make one directory, the highest first.
type Merged = Vec<(usize, NodeId)>;

/// What a name in a directory is.
enum Step {
    Directory(Merged),
    File(Found),
    Link(String),
    Nothing,
}

// === impl Tree ===

impl<'a> Tree<'a> {
    /// `layers` are the lowest first.
    pub(super) fn new(layers: &'a [Arc<Layer>]) -> Self {
        Self { layers: layers.iter().map(Arc::as_ref).enumerate().rev().collect() }
    }

    /// The regular file at `path`, with all links followed.
    pub(super) fn file(&self, path: &str) -> Option<Found> {
        match self.walk(path)? {
            Step::File(found) => Some(found),
            _ => None,
        }
    }

    /// The names in the directory at `path`, as far as they are text.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let Some(Step::Directory(merged)) = self.walk(path) else { return Vec::new() };
        let mut names = Vec::new();
        for (layer, node) in merged {
            let Some(layer) = self.layer(layer) else { continue };
            let Ok(entries) = layer.index().entries(node, 0) else { continue };
            let entries = entries.take(MOST_STEPS).filter_map(Result::ok);
            names.extend(entries.filter_map(|entry| String::from_utf8(entry.name.to_vec()).ok()));
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The directory that a file is in, by the name that its layer has for it.
    pub(super) fn directory_of(&self, found: Found) -> String {
        let path = self.layer(found.layer).and_then(|layer| layer.index().path(found.node).ok());
        let path = path.and_then(|path| String::from_utf8(path).ok()).unwrap_or_default();
        path.rsplit_once('/').map_or_else(String::new, |(directory, _)| format!("/{directory}"))
    }

    fn walk(&self, path: &str) -> Option<Step> {
        let root: Merged = self.layers.iter().map(|(number, _)| (*number, NodeId::ROOT)).collect();
        let mut above = vec![root];
        // The names that are still to be followed, the next one last.
        let mut names: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut links = 0;
        for _ in 0..MOST_STEPS {
            let Some(name) = names.pop() else { break };
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    if above.len() > 1 {
                        above.pop();
                    }
                    continue;
                }
                _ => {}
            }
            match self.step(above.last()?, name.as_bytes()) {
                Step::Directory(merged) => above.push(merged),
                Step::File(found) => return names.is_empty().then_some(Step::File(found)),
                Step::Nothing => return None,
                Step::Link(target) => {
                    links += 1;
                    if links > MOST_LINKS || names.len() > MOST_STEPS {
                        return None;
                    }
                    if target.starts_with('/') {
                        above.truncate(1);
                    }
                    names.extend(target.split('/').rev().map(str::to_owned));
                }
            }
        }
        if names.is_empty() { above.pop().map(Step::Directory) } else { None }
    }

    fn step(&self, directory: &Merged, name: &[u8]) -> Step {
        let mut merged = Merged::new();
        for &(number, node) in directory {
            let Some(index) = self.layer(number).map(Layer::index) else { continue };
            let Ok(Some(child)) = index.lookup(node, name) else { continue };
            let Ok(about) = index.node(child) else { return Step::Nothing };
            match about.kind() {
                Kind::Dir => {
                    merged.push((number, child));
                    if about.is_opaque() {
                        break;
                    }
                }
                // A directory above hides it, and what is below it.
                _ if !merged.is_empty() => break,
                Kind::Reg => return Step::File(Found { layer: number, node: child }),
                Kind::Symlink => {
                    let target = index.symlink_target(child).ok().map(<[u8]>::to_vec);
                    let target = target.and_then(|target| String::from_utf8(target).ok());
                    return target.map_or(Step::Nothing, Step::Link);
                }
                // A whiteout among them.
                Kind::Char | Kind::Block | Kind::Fifo => return Step::Nothing,
            }
        }
        if merged.is_empty() { Step::Nothing } else { Step::Directory(merged) }
    }

    fn layer(&self, number: usize) -> Option<&'a Layer> {
        self.layers.iter().find(|(other, _)| *other == number).map(|(_, layer)| *layer)
    }
}
