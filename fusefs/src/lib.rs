//! The kernel side: the FUSE connection, inodes and replies.
