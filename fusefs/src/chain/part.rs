//! A directory of one layer, and the number that a chain knows it by.
//!
//! Numbers are a pure function of the chain and its layers: whoever serves the chain next finds the same directory behind
//! the same number. A directory that one layer has alone says so in its number, for then everything below it is that
//! layer's, too, and nothing needs to be remembered about it.

use estargz::NodeId;

/// Largest number of layers that [`Connection::attach_chain`](crate::Connection::attach_chain) takes. Images have 127 at
/// most: Docker's limit.
pub const MAX_LAYERS: usize = 1 << LAYER_BITS;

const LAYER_BITS: u32 = 7;
const NODE_BITS: u32 = 24;
const ALONE: u32 = 1 << (LAYER_BITS + NODE_BITS);

// Every node of a layer has room.
const _: () = assert!(estargz::limits::NODES < 1 << NODE_BITS);

/// A directory of one of a chain's layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// The layer, counted from the uppermost one.
    pub(super) layer: usize,
    /// The directory in it.
    pub(super) node: NodeId,
}

/// What a directory's number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// No other layer has something to add.
    Alone(Part),
    /// The uppermost of several parts.
    Merged(Part),
}

// === impl Number ===

impl Number {
    /// The directory's uppermost part.
    pub(super) fn part(self) -> Part {
        let (Self::Alone(part) | Self::Merged(part)) = self;
        part
    }

    /// Reads a number that came from the kernel; None for numbers that were never given out.
    pub(super) fn read(number: NodeId) -> Option<Self> {
        let number = number.get();
        let layer = (number & !ALONE) >> NODE_BITS;
        let node = NodeId::new(number & ((1 << NODE_BITS) - 1))?;
        let part = Part { layer: layer as usize, node };
        Some(if number & ALONE == 0 { Self::Merged(part) } else { Self::Alone(part) })
    }

    /// The number for the kernel; None for a part that no chain has.
    pub(super) fn write(self) -> Option<NodeId> {
        let (flag, part) = match self {
            Self::Alone(part) => (ALONE, part),
            Self::Merged(part) => (0, part),
        };
        let layer = u32::try_from(part.layer).ok().filter(|&layer| layer < 1 << LAYER_BITS)?;
        let node = Some(part.node.get()).filter(|&node| node < 1 << NODE_BITS)?;
        NodeId::new(flag | layer << NODE_BITS | node)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_root_of_a_chain_has_the_number_of_every_root() {
        let part = Part { layer: 0, node: NodeId::ROOT };
        assert_eq!(Number::Merged(part).write(), Some(NodeId::ROOT));
    }

    #[test]
    fn what_does_not_fit_has_no_number() {
        let node = NodeId::new(1 << NODE_BITS).unwrap();
        assert_eq!(Number::Alone(Part { layer: 0, node }).write(), None);
        assert_eq!(Number::Merged(Part { layer: MAX_LAYERS, node: NodeId::ROOT }).write(), None);
        assert_eq!(Number::read(NodeId::new(ALONE).unwrap()), None);
    }

    proptest! {
        #[test]
        fn a_number_leads_back_to_its_part(layer in 0..MAX_LAYERS, node in 1_u32..1 << NODE_BITS, alone: bool) {
            let part = Part { layer, node: NodeId::new(node).unwrap() };
            let number = if alone { Number::Alone(part) } else { Number::Merged(part) };
            prop_assert_eq!(Number::read(number.write().unwrap()), Some(number));
        }
    }
}
