//! The registry as a process of its own, so that its processor time can be told from that of what is measured.
//!
//! It is told what to do by lines of JSON on its standard input and answers each with one line. It ends when
//! the input does, so it never outlives the program that started it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{RegistryOptions, Shaping, TestRegistry};

/// What the process can be told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Serve the image that a layout holds under a tag.
    AddLayout {
        /// The `oci-layout` directory.
        layout: PathBuf,
        /// The tag there.
        layout_tag: String,
        /// The repository here.
        repository: String,
        /// The tag here.
        tag: String,
    },
    /// Behave as behind this network.
    Shape(Shaping),
    /// Forget the requests so far.
    Clear,
    /// Tell about the requests so far.
    Traffic,
}

/// What it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It listens there: the first line, without having been asked.
    Host(String),
    /// Done.
    Done,
    /// The requests so far.
    Traffic(Traffic),
    /// It could not be done.
    Failed(String),
}

/// What a registry was asked and what it sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Requests of every kind.
    pub requests: u64,
    /// Those for bytes of blobs.
    pub blob_requests: u64,
    /// Bytes of bodies that were handed to connections.
    pub bytes: u64,
}

/// A registry that runs as a process; ended when dropped.
#[derive(Debug)]
pub struct RegistryProcess {
    child: Child,
    host: String,
    pipes: Mutex<Pipes>,
}

#[derive(Debug)]
struct Pipes {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The process's side: a registry on a free port that does what the standard input says, until its end.
///
/// # Errors
/// The registry does not start, or a line is no order.
pub fn serve() -> Result<()> {
    let registry = TestRegistry::start(RegistryOptions::default())?;
    say(&Answer::Host(registry.host()))?;
    for line in std::io::stdin().lines() {
        let order = serde_json::from_str(&line?).context("an order")?;
        say(&obey(&registry, order))?;
    }
    Ok(())
}

fn say(answer: &Answer) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(answer)?)?;
    Ok(stdout.flush()?)
}

fn obey(registry: &TestRegistry, order: Order) -> Answer {
    match order {
        Order::AddLayout { layout, layout_tag, repository, tag } => {
            match registry.add_layout(&layout, &layout_tag, &repository, &tag) {
                Ok(_) => Answer::Done,
                Err(error) => Answer::Failed(format!("{error:#}")),
            }
        }
        Order::Shape(shaping) => {
            registry.set_shaping(shaping);
            Answer::Done
        }
        Order::Clear => {
            registry.clear_requests();
            Answer::Done
        }
        Order::Traffic => Answer::Traffic(registry.traffic()),
    }
}

// === impl RegistryProcess ===

impl RegistryProcess {
    /// Starts `program`, which is this crate's `testkit-registry`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(program: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let orders = child.stdin.take().context("the registry's input")?;
        let answers = BufReader::new(child.stdout.take().context("the registry's output")?);
        let mut pipes = Pipes { orders, answers };
        match pipes.answer()? {
            Answer::Host(host) => Ok(Self { child, host, pipes: Mutex::new(pipes) }),
            other => bail!("the registry's first line is {other:?}"),
        }
    }

    /// `host:port`, as it stands in a reference.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As [`TestRegistry::add_layout`].
    ///
    /// # Errors
    /// The directory is not a layout, or holds no such tag.
    pub fn add_layout(&self, layout: &Path, layout_tag: &str, repository: &str, tag: &str) -> Result<()> {
        self.tell(&Order::AddLayout {
            layout: layout.to_owned(),
            layout_tag: layout_tag.to_owned(),
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        })
    }

    /// As [`TestRegistry::set_shaping`].
    ///
    /// # Errors
    /// The process is gone.
    pub fn set_shaping(&self, shaping: Shaping) -> Result<()> {
        self.tell(&Order::Shape(shaping))
    }

    /// As [`TestRegistry::clear_requests`].
    ///
    /// # Errors
    /// The process is gone.
    pub fn clear_requests(&self) -> Result<()> {
        self.tell(&Order::Clear)
    }

    /// What it was asked since the start or the last [`Self::clear_requests`].
    ///
    /// # Errors
    /// The process is gone.
    pub fn traffic(&self) -> Result<Traffic> {
        match self.ask(&Order::Traffic)? {
            Answer::Traffic(traffic) => Ok(traffic),
            other => bail!("the registry answers {other:?} when asked for its traffic"),
        }
    }

    fn tell(&self, order: &Order) -> Result<()> {
        match self.ask(order)? {
            Answer::Done => Ok(()),
            other => bail!("the registry answers {other:?}"),
        }
    }

    fn ask(&self, order: &Order) -> Result<Answer> {
        let mut pipes = self.pipes.lock();
        writeln!(pipes.orders, "{}", serde_json::to_string(order)?).context("tell the registry")?;
        match pipes.answer()? {
            Answer::Failed(why) => bail!("the registry: {why}"),
            answer => Ok(answer),
        }
    }
}

impl Pipes {
    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        if self.answers.read_line(&mut line).context("hear the registry")? == 0 {
            bail!("the registry's process has ended");
        }
        serde_json::from_str(&line).with_context(|| format!("the registry's answer {line:?}"))
    }
}

impl Drop for RegistryProcess {
    fn drop(&mut self) {
        // Its own child, not yet waited for: the number cannot have been given to another process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
