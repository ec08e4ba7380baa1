//! Looking again, from time to time, at what is on disk: a bit that flips is found before a program reads it.
//!
//! At most a tenth of one disk's and one processor's time. Nothing is remembered: a restart begins anew.

use std::{
    sync::Weak,
    time::{Duration, Instant},
};

use store::LayerKey;

use super::{RemoteLayers, images::blocking};

/// Bytes that are looked at without a pause.
const AT_ONCE: u64 = 16 << 20;
/// How much longer a pause is than what came before.
const REST: u32 = 9;

/// Looks at all layers, `every` so often.
pub(super) async fn watch(remote: Weak<RemoteLayers>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(keys) = remote.upgrade().map(|this| this.opener.store.keys_on_disk()) else { return };
        for key in keys {
            look_at(&remote, key).await;
        }
    }
}

/// Looks at one layer. One that is deleted meanwhile, or cannot be read, is passed over.
async fn look_at(remote: &Weak<RemoteLayers>, key: LayerKey) {
    let mut from = Some(0);
    while let Some(at) = from {
        let Some(this) = remote.upgrade() else { return };
        let began = Instant::now();
        from = match blocking(move || this.verify_some(key, at, AT_ONCE)).await {
            Ok(verified) => verified.next,
            Err(reason) => return tracing::debug!(layer = %key, reason, "cannot look at a layer again"),
        };
        tokio::time::sleep(began.elapsed() * REST).await;
    }
}
