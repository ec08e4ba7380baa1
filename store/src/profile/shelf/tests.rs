use std::time::Duration;

use estargz::{ChunkId, Digest};

use super::*;
use crate::Access;

fn key(number: u32) -> Book {
    Book::of_any(LayerKey { blob: Digest::of(&number.to_le_bytes()), toc: Digest::of(b"toc") })
}

fn some(accesses: u32) -> Vec<Access> {
    (0..accesses).map(|chunk| Access { chunk: ChunkId(chunk), at: chunk }).collect()
}

#[test]
fn gives_back_what_it_was_given_and_ignores_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path().join("profiles"), 1 << 20).unwrap();
    assert_eq!(shelf.get(key(1)), None);
    shelf.change(key(1), |profile| profile.add(&some(3)));
    assert_eq!(shelf.get(key(1)).unwrap().accesses(), some(3));
    fs::copy(shelf.path(key(1)), shelf.path(key(2))).unwrap();
    assert_eq!(shelf.get(key(2)), None, "it is another layer's");
    fs::write(shelf.path(key(1)), b"damaged").unwrap();
    assert_eq!(shelf.get(key(1)), None);
    shelf.change(key(1), |profile| profile.add(&some(5)));
    assert_eq!(shelf.get(key(1)).unwrap().accesses(), some(5));
}

#[test]
fn what_was_of_no_use_for_longest_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path().to_owned(), 4000).unwrap();
    for number in 0..4 {
        shelf.change(key(number), |profile| profile.add(&some(100)));
        let then = SystemTime::now() - Duration::from_secs(1000 - u64::from(number));
        File::options().write(true).open(shelf.path(key(number))).unwrap().set_modified(then).unwrap();
    }
    shelf.touch(key(0));
    shelf.change(key(4), |profile| profile.add(&some(200)));
    let kept: Vec<_> = (0..5).filter(|number| shelf.get(key(*number)).is_some()).collect();
    assert_eq!(kept, [0, 3, 4]);
    shelf.change(key(9), |profile| profile.add(&some(2000)));
    assert!(shelf.get(key(9)).is_some(), "the newest stays though it is too large alone");
}

#[test]
fn what_images_read_of_one_layer_is_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path().to_owned(), 1 << 20).unwrap();
    let of = |image| Book::of(key(1).layer, PlanId(image));
    for image in [1, 2] {
        shelf.change(of(image), |profile| profile.add(&some(image as u32)) | profile.make_whole());
    }
    let lengths = [1, 2].map(|image| shelf.get(of(image)).unwrap().accesses().len());
    assert_eq!(lengths, [1, 2]);
    assert!(shelf.get(of(1)).unwrap().is_whole());
    assert!(!shelf.has(key(1)) && !shelf.has(of(3)));
}
