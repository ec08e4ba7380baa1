//! The test registry as a program: `testkit::registry_process` talks to it.

fn main() -> anyhow::Result<()> {
    testkit::registry_process::serve()
}
