//! What `starling doctor` says, in words.

use super::check::{Check, State};

/// The checks in their order, with what to do below each, and a sum.
pub(super) fn lines(checks: &[Check]) -> Vec<String> {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    let mut lines: Vec<_> = checks.iter().flat_map(|check| check_lines(check, width)).collect();
    lines.push(String::new());
    lines.push(sum(checks));
    lines
}

fn check_lines(check: &Check, width: usize) -> Vec<String> {
    let mut lines = vec![format!("{:<7}  {:<width$}  {}", check.state.word(), check.name, check.found)];
    if let Some(remedy) = &check.remedy {
        let colon = if remedy.lines.is_empty() { "" } else { ":" };
        lines.push(format!("         {}{colon}", remedy.what));
        lines.extend(remedy.lines.iter().map(|line| format!("             {line}").trim_end().to_owned()));
    }
    lines
}

/// How many there are of each state.
fn sum(checks: &[Check]) -> String {
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let states = [State::Ok, State::Warning, State::Failure, State::Skipped].into_iter();
    let some = states.filter(|state| count(*state) > 0);
    some.map(|state| format!("{} {}", count(state), state.word())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{super::check::Remedy, *};

    #[test]
    fn what_to_do_stands_below_what_was_found() {
        let checks = [
            Check::ok("kernel", "Linux 6.18"),
            Check::failure("fuse", "there is no /dev/fuse", Remedy::run(&["modprobe fuse"])),
            Check::warning("room", "little", Remedy::say("make room")),
        ];
        let expected = [
            "ok       kernel  Linux 6.18",
            "failure  fuse    there is no /dev/fuse",
            "         run:",
            "             modprobe fuse",
            "warning  room    little",
            "         make room",
            "",
            "1 ok, 1 warning, 1 failure",
        ];
        assert_eq!(lines(&checks), expected);
    }
}
