//! Inode numbers: the slot in the upper half, the node in the lower.
//!
//! A pure function, so that any process that knows the slots can answer for any inode the kernel ever saw. Slots and
//! nodes start at 1, so nothing in a layer collides with inode 1, the connection's root.

use estargz::NodeId;
use fuser::INodeNo;

use crate::Slot;

/// What an inode number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inode {
    /// The directory of slots.
    Root,
    /// A node of the layer in a slot, or a directory of the chain in it.
    Layer(Slot, NodeId),
}

// === impl Inode ===

impl Inode {
    /// Reads a number that came from the kernel; None for numbers that were never given out.
    pub(crate) fn from_number(number: INodeNo) -> Option<Self> {
        if number == INodeNo::ROOT {
            return Some(Self::Root);
        }
        let slot = Slot::new((number.0 >> 32) as u32)?;
        let node = NodeId::new(number.0 as u32)?;
        Some(Self::Layer(slot, node))
    }

    /// The number that the kernel knows this by.
    pub(crate) fn number(self) -> INodeNo {
        match self {
            Self::Root => INodeNo::ROOT,
            Self::Layer(slot, node) => INodeNo(u64::from(slot.get()) << 32 | u64::from(node.get())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_never_given_out_stand_for_nothing() {
        for number in [0, 2, 7, u64::from(u32::MAX), 1 << 32, 9 << 32] {
            assert_eq!(Inode::from_number(INodeNo(number)), None, "{number:#x}");
        }
        assert_eq!(Inode::from_number(INodeNo(1)), Some(Inode::Root));
    }

    proptest! {
        #[test]
        fn a_number_leads_back_to_its_slot_and_node(slot in 1..=u32::MAX, node in 1..=u32::MAX) {
            let inode = Inode::Layer(Slot::new(slot).unwrap(), NodeId::new(node).unwrap());
            prop_assert_eq!(Inode::from_number(inode.number()), Some(inode));
            prop_assert_ne!(inode.number(), INodeNo::ROOT);
        }
    }
}
