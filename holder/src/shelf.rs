//! The descriptors that are kept.

use std::os::fd::OwnedFd;

/// Far more than a daemon has use for; a daemon that keeps sending must not fill this process.
const MOST: usize = 64;

/// Descriptors by name, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Vec<(String, OwnedFd)>);

// === impl Shelf ===

impl Shelf {
    /// Keeps descriptors under a name, instead of those that had it. What is too much is closed.
    pub(crate) fn store(&mut self, name: &str, descriptors: Vec<OwnedFd>) {
        if descriptors.is_empty() {
            return;
        }
        self.remove(name);
        let room = MOST.saturating_sub(self.0.len());
        self.0.extend(descriptors.into_iter().take(room).map(|descriptor| (name.to_owned(), descriptor)));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(kept, _)| kept != name);
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &(String, OwnedFd)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect()
    }

    fn names(shelf: &Shelf) -> String {
        shelf.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_name_is_replaced_or_removed_as_a_whole() {
        let mut shelf = Shelf::default();
        shelf.store("a", some(2));
        shelf.store("b", some(1));
        shelf.store("a", some(1));
        assert_eq!(names(&shelf), "b a");
        shelf.store("b", Vec::new());
        shelf.remove("c");
        assert_eq!(names(&shelf), "b a");
        shelf.remove("b");
        assert_eq!(names(&shelf), "a");
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut shelf = Shelf::default();
        shelf.store("many", some(MOST));
        shelf.store("more", some(3));
        assert_eq!(shelf.iter().len(), MOST);
    }
}
