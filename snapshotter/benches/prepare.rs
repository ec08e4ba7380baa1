//! How long the Prepares of an image of sixty layers take behind a delay of 20 ms. Layers are opened ahead, so that the
//! delay is not paid for each: `cargo bench -p snapshotter --bench prepare`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement ends by panicking")]

// What the tests make images and talk to the daemon with; they use more of it.
#[allow(dead_code)]
#[path = "../tests/lazy/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "../tests/lazy/image.rs"]
mod image;
#[allow(dead_code)]
#[path = "../tests/lazy/node.rs"]
mod node;

use std::time::{Duration, Instant};

use testkit::{
    registry::{RegistryOptions, Shaping, TestRegistry},
    requires, skip_unless,
};

use self::{
    image::{Image, Layer},
    node::{Node, ON_DEMAND},
};

const LAYERS: u64 = 60;
const LATENCY: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() {
    skip_unless!(requires::fuse());
    let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
    let layer = |n: u64| Layer::new(&registry, 5000 + n, 20, 20_000);
    let image = Image::push(&registry, "many", (0..LAYERS).map(layer).collect());
    registry.set_shaping(Shaping { latency: LATENCY, ..Shaping::default() });
    let mut node = Node::start(ON_DEMAND).await;
    let began = Instant::now();
    node.pull(&image).await;
    let took = began.elapsed();
    let memory = node.status().memory;
    println!("{LAYERS} layers prepared in {took:?} with {} requests, {memory:?}", registry.requests().len());
}
