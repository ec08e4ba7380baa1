//! `cargo xtask stress`: containers of a real containerd, and readers of plain overlays, read random files of real
//! images and compare every byte, while faults strike at moments that a seed decides.
//!
//! It knows nothing of Starling's crates: it sees files, containerd, and what the admin socket says. A run fails on the
//! first wrong byte, on a failed read that `docs/semantics.md` does not allow, on a read that takes longer than any
//! bound, and, at its end, on whatever was left behind.
//!
//! | file | what |
//! |---|---|
//! | `plan` | which fault strikes when: a pure function of the seed |
//! | `strike` | carries the plan out |
//! | `judge` | what was done, what failed, and whether it may |
//! | `node`, `disk`, `images`, `admin`, `ctr` | the machine under stress |
//! | `readers`, `pulse`, `container`, `churn`, `damage` | those who read |
//! | `watch`, `teardown` | memory, descriptors and gauges; what is left behind |
//! | `report`, `progress` | what people and programs get to see |

mod admin;
mod churn;
mod container;
mod ctr;
mod damage;
mod disk;
mod images;
mod judge;
mod node;
mod options;
mod plan;
mod progress;
mod pulse;
mod readers;
mod report;
mod run;
mod strike;
mod teardown;
mod truth;
mod watch;

pub use self::{
    options::{Kind, Options},
    report::Report,
    run::{plan, run},
};
