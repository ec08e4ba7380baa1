//! Random layers, against a model that keeps paths in a map.

use proptest::prelude::*;

use super::*;

/// A node of the model. What a node is called does not matter, only which paths are the same node.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Dir { opaque: bool },
    Reg { chunks: Vec<(u64, u64)> },
    Symlink { target: String },
    Fifo,
    Whiteout,
}

#[derive(Debug, Clone, PartialEq)]
struct Model {
    shape: Shape,
    mode: i64,
    uid: i64,
}

/// An entry to be made into JSON and put into the model.
#[derive(Debug, Clone)]
enum Step {
    Dir { path: Vec<usize>, mode: i64, uid: i64 },
    Reg { path: Vec<usize>, mode: i64, uid: i64, chunks: Vec<u64> },
    Symlink { path: Vec<usize>, uid: i64 },
    Fifo { path: Vec<usize>, mode: i64 },
    Hardlink { path: Vec<usize>, target: Vec<usize> },
    Whiteout { path: Vec<usize> },
    Opaque { path: Vec<usize> },
}

const NAMES: [&str; 5] = ["a", "b", "bb", "ü", "a-"];

fn path_of(parts: &[usize]) -> String {
    parts.iter().map(|&part| NAMES[part]).collect::<Vec<_>>().join("/")
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = || prop::collection::vec(0..NAMES.len(), 1..4);
    let mode = 0..0o10000i64;
    let step = prop_oneof![
        3 => (path(), mode.clone(), 0..9i64).prop_map(|(path, mode, uid)| Step::Dir { path, mode, uid }),
        5 => (path(), mode.clone(), 0..9i64, prop::collection::vec(1..10_000u64, 0..4))
            .prop_map(|(path, mode, uid, chunks)| Step::Reg { path, mode, uid, chunks }),
        1 => (path(), 0..9i64).prop_map(|(path, uid)| Step::Symlink { path, uid }),
        1 => (path(), mode).prop_map(|(path, mode)| Step::Fifo { path, mode }),
        3 => (path(), path()).prop_map(|(path, target)| Step::Hardlink { path, target }),
        1 => path().prop_map(|path| Step::Whiteout { path }),
        1 => path().prop_map(|path| Step::Opaque { path }),
    ];
    prop::collection::vec(step, 0..30)
}

/// The layer as unpacking would make it: paths to nodes.
#[derive(Debug, Default)]
struct Layer {
    nodes: Vec<Model>,
    paths: BTreeMap<String, usize>,
    entries: Vec<Value>,
    offset: u64,
}

impl Layer {
    fn dir(&mut self, path: &str) -> Option<()> {
        if path.is_empty() {
            return Some(());
        }
        self.dir(path.rsplit_once('/').map_or("", |(dir, _)| dir))?;
        match self.paths.get(path).map(|&id| &self.nodes[id].shape) {
            Some(Shape::Dir { .. }) => Some(()),
            None | Some(Shape::Whiteout) => {
                self.put(path, Model { shape: Shape::Dir { opaque: false }, mode: 0o755, uid: 0 });
                Some(())
            }
            Some(_) => None,
        }
    }

    fn put(&mut self, path: &str, node: Model) {
        self.nodes.push(node);
        self.bind(path, self.nodes.len() - 1);
    }

    fn bind(&mut self, path: &str, id: usize) {
        let below = format!("{path}/");
        self.paths.retain(|other, _| !other.starts_with(&below));
        self.paths.insert(path.to_owned(), id);
    }

    /// Applies a step that unpacking would allow; others are left out.
    fn apply(&mut self, step: Step) -> Option<()> {
        let (Step::Dir { path, .. }
        | Step::Reg { path, .. }
        | Step::Symlink { path, .. }
        | Step::Fifo { path, .. }
        | Step::Hardlink { path, .. }
        | Step::Whiteout { path }
        | Step::Opaque { path }) = &step;
        let path = path_of(path);
        let parent = path.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned();
        let prefix = path.strip_suffix(path.rsplit('/').next().unwrap()).unwrap().to_owned();
        let before = (self.nodes.clone(), self.paths.clone());
        let entry = match step {
            Step::Opaque { .. } => {
                let done = self.dir(&path);
                if done.is_some() {
                    self.nodes[self.paths[&path]].shape = Shape::Dir { opaque: true };
                }
                done.map(|()| reg(&format!("{path}/.wh..wh..opq")))
            }
            step => self.dir(&parent).and_then(|()| self.apply_in_dir(step, &path, &prefix)),
        };
        match entry {
            Some(entry) => self.entries.push(entry),
            None => (self.nodes, self.paths) = before,
        }
        Some(())
    }

    fn apply_in_dir(&mut self, step: Step, path: &str, prefix: &str) -> Option<Value> {
        match step {
            Step::Dir { mode, uid, .. } => {
                let known = self.paths.get(path).map(|&id| self.nodes[id].shape.clone());
                match known {
                    Some(Shape::Dir { opaque }) => {
                        self.nodes[self.paths[path]] = Model { shape: Shape::Dir { opaque }, mode, uid }
                    }
                    _ => self.put(path, Model { shape: Shape::Dir { opaque: false }, mode, uid }),
                }
                Some(json!({"name": path, "type": "dir", "mode": mode, "uid": uid}))
            }
            Step::Reg { mode, uid, chunks, .. } => {
                let size: u64 = chunks.iter().sum();
                let mut entry = json!({"name": path, "type": "reg", "mode": mode, "uid": uid, "size": size});
                let (mut at, mut places) = (0, Vec::new());
                for (index, &len) in chunks.iter().enumerate() {
                    // Offsets jump about.
                    self.offset = (self.offset * 5 + 3) % 65_537;
                    let offset = 100 + self.offset * 100;
                    places.push((offset, len));
                    let place = json!({"offset": offset, "chunkOffset": at, "chunkSize": len, "chunkDigest": Digest::of(&offset.to_le_bytes())});
                    if index > 0 {
                        self.entries
                            .push(std::mem::replace(&mut entry, json!({"name": path, "type": "chunk"})));
                    }
                    entry.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
                    at += len;
                }
                self.put(path, Model { shape: Shape::Reg { chunks: places }, mode, uid });
                Some(entry)
            }
            Step::Symlink { uid, .. } => {
                let target = format!("../{path}");
                self.put(path, Model { shape: Shape::Symlink { target: target.clone() }, mode: 0o777, uid });
                Some(json!({"name": path, "type": "symlink", "mode": 0o777, "linkName": target, "uid": uid}))
            }
            Step::Fifo { mode, .. } => {
                self.put(path, Model { shape: Shape::Fifo, mode, uid: 0 });
                Some(json!({"name": path, "type": "fifo", "mode": mode}))
            }
            Step::Hardlink { target, .. } => {
                let target = path_of(&target);
                let &id = self.paths.get(&target).filter(|_| target != path)?;
                if matches!(self.nodes[id].shape, Shape::Dir { .. } | Shape::Whiteout) {
                    return None;
                }
                self.bind(path, id);
                Some(json!({"name": path, "type": "hardlink", "linkName": target}))
            }
            Step::Whiteout { .. } => {
                if !self.paths.contains_key(path) {
                    self.put(path, Model { shape: Shape::Whiteout, mode: 0, uid: 0 });
                }
                Some(reg(&format!("{prefix}.wh.{}", path.rsplit('/').next().unwrap())))
            }
            Step::Opaque { .. } => None,
        }
    }
}

fn shape_of(index: &View, id: NodeId) -> Shape {
    let node = index.node(id).unwrap();
    match node.kind() {
        Kind::Dir => Shape::Dir { opaque: node.is_opaque() },
        Kind::Fifo => Shape::Fifo,
        Kind::Char => Shape::Whiteout,
        Kind::Symlink => {
            Shape::Symlink { target: String::from_utf8(index.symlink_target(id).unwrap().to_vec()).unwrap() }
        }
        Kind::Reg => {
            let chunks: Vec<_> =
                index.chunks_of(id, 0..u64::MAX).unwrap().map(|id| index.chunk(id).unwrap()).collect();
            for chunk in &chunks {
                assert_eq!((chunk.node, chunk.digest), (id, Digest::of(&chunk.member_start.to_le_bytes())));
                assert!(chunk.member_start < chunk.member_end && chunk.member_end <= TOC_OFFSET);
            }
            Shape::Reg { chunks: chunks.iter().map(|chunk| (chunk.member_start, chunk.len)).collect() }
        }
        Kind::Block => panic!("no step makes one"),
    }
}

/// Every file lies by itself at a page's start, in node order, and its chunks tile it.
fn check_content(index: &View) {
    let mut end = 0;
    for id in (1..=index.node_count()).filter_map(NodeId::new) {
        if index.node(id).unwrap().kind() != Kind::Reg {
            continue;
        }
        let file = index.file(id).unwrap();
        if file.size > 0 {
            assert_eq!(file.content_offset, end);
        }
        let mut at = end;
        for id in index.chunks_of(id, 0..file.size).unwrap() {
            let chunk = index.chunk(id).unwrap();
            assert_eq!(chunk.content_offset, at);
            at += chunk.len;
        }
        assert_eq!(at - end, file.size);
        end = at.next_multiple_of(limits::CONTENT_ALIGN);
    }
    assert_eq!(index.content_len(), end);
}

fn check_chunk_order(index: &View) {
    let keys: Vec<_> = (0..index.chunk_count())
        .map(|id| index.chunk(crate::ChunkId(id)).unwrap())
        .map(|chunk| (chunk.member_start, chunk.inner_offset))
        .collect();
    assert!(keys.is_sorted());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn an_index_is_what_unpacking_makes(steps in steps()) {
        let mut layer = Layer::default();
        for step in steps {
            layer.apply(step);
        }
        let index = build(&layer.entries).unwrap();

        let mut found = BTreeMap::new();
        walk(&index, &mut |path, id| {
            if id != NodeId::ROOT {
                found.insert(path.trim_start_matches('/').to_owned(), id);
            }
        });
        prop_assert!(found.keys().eq(layer.paths.keys()), "{:?} {:?}", found, layer.paths);

        let mut nodes = BTreeMap::new();
        for (path, &model_id) in &layer.paths {
            let (id, model) = (found[path], &layer.nodes[model_id]);
            // The same node here if and only if it is there.
            prop_assert_eq!(*nodes.entry(model_id).or_insert(id), id);
            let node = index.node(id).unwrap();
            prop_assert_eq!(&shape_of(&index, id), &model.shape, "{}", path);
            prop_assert_eq!((i64::from(node.perm()), i64::from(node.uid())), (model.mode, model.uid), "{}", path);
            let names = layer.paths.values().filter(|&&id| id == model_id).count();
            let dirs_in = |dir: &str| layer.paths.iter().filter(|(path, id)| {
                path.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.contains('/'))
                    && matches!(layer.nodes[**id].shape, Shape::Dir { .. })
            }).count();
            let expected = if node.kind() == Kind::Dir { 2 + dirs_in(path) } else { names };
            prop_assert_eq!(node.nlink() as usize, expected, "{}", path);
        }
        let ids: std::collections::BTreeSet<_> = nodes.values().collect();
        prop_assert_eq!(ids.len(), nodes.len());
        prop_assert_eq!(index.node_count() as usize, nodes.len() + 1);
        check_content(&index);
        check_chunk_order(&index);

        // A pure function of the TOC.
        let json = blob::toc_json(&layer.entries);
        let again = || build_index(blob::section(&json).as_slice(), TOC_OFFSET, TOC_OFFSET + 100).unwrap().index;
        prop_assert_eq!(again(), again());
    }

    #[test]
    fn a_damaged_index_never_panics(steps in steps(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), len: prop::sample::Index) {
        let mut layer = Layer::default();
        steps.into_iter().for_each(|step| { layer.apply(step); });
        let json = blob::toc_json(&layer.entries);
        let mut bytes = build_index(blob::section(&json).as_slice(), TOC_OFFSET, TOC_OFFSET + 100).unwrap().index;
        for len in [0, 7, 16, 100, len.index(bytes.len())] {
            prop_assert!(Index::parse(&bytes[..len]).is_err(), "cut to {}", len);
        }
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(index) = Index::parse(bytes) {
            index_walk::touch_everything(&index);
        }
    }
}

/// The look at everything that the fuzz targets share with this test.
#[path = "index_walk.rs"]
mod index_walk;
