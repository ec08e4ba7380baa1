//! The registry that everything is pulled from: a process of its own, with each image in both forms.

use anyhow::{Context, Result};
use testkit::registry_process::{RegistryProcess, Traffic};

use crate::{
    contender::Form,
    image::Prepared,
    network::Network,
    process::{self, Pid},
    programs::Programs,
};

/// The running registry.
#[derive(Debug)]
pub(crate) struct Origin {
    process: RegistryProcess,
}

impl Origin {
    /// Starts it.
    pub(crate) fn start(programs: &Programs) -> Result<Self> {
        Ok(Self { process: RegistryProcess::start(&programs.registry)? })
    }

    /// Serves both forms of `image` in a repository of its name.
    pub(crate) fn add(&self, image: &Prepared) -> Result<()> {
        for (form, layout) in [(Form::Plain, &image.plain), (Form::Estargz, &image.estargz)] {
            self.process
                .add_layout(&layout.dir, &layout.tag, &image.name, tag(form))
                .with_context(|| format!("serve {}", image.name))?;
        }
        Ok(())
    }

    /// What containerd is asked to pull.
    pub(crate) fn reference(&self, name: &str, form: Form) -> String {
        format!("{}/{name}:{}", self.process.host(), tag(form))
    }

    /// From now on it is behind `network`.
    pub(crate) fn put_behind(&self, network: Network) -> Result<()> {
        self.process.set_shaping(network.shaping())
    }

    /// Forgets what it was asked.
    pub(crate) fn forget_requests(&self) -> Result<()> {
        self.process.clear_requests()
    }

    /// What it was asked and sent since then.
    pub(crate) fn traffic(&self) -> Result<Traffic> {
        self.process.traffic()
    }

    /// Its processor time so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let pid: Pid = self.process.pid();
        process::cpu_seconds(pid)
    }
}

fn tag(form: Form) -> &'static str {
    match form {
        Form::Plain => "plain",
        Form::Estargz => "estargz",
    }
}
