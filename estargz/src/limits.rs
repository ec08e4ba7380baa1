//! Limits on everything that a blob or a TOC claims, each with its reason.
//!
//! A layer beyond a limit is refused before anything is allocated for the claim. Refusing costs that
//! layer its laziness, never the daemon its memory.

/// Longest blob, in bytes: offsets travel as signed 64-bit numbers in HTTP servers and in the TOC.
pub const BLOB_LEN: u64 = i64::MAX as u64;

/// Longest compressed TOC, in bytes. Two digests a file do not compress: about 120 bytes an entry.
pub const TOC_SECTION_LEN: u64 = 256 << 20;

/// Longest TOC, in bytes of JSON. The Go writer indents, which makes 400 to 500 bytes of one entry.
/// Inflating, parsing and hashing this much takes under 20 s on one slow core, also when it is a bomb.
pub const TOC_LEN: u64 = 1 << 30;

/// Most bytes of JSON in one TOC entry, and in all that surrounds the entries: the JSON parser gathers
/// a string whole. Room for 64 KiB of extended attributes in base64, escaped names and indentation.
pub const TOC_ENTRY_LEN: u64 = 512 << 10;

/// Most TOC entries, chunk entries among them. With all that comes of it, an entry costs up to 290 bytes of memory
/// besides its name while an index is built: this many stay below 420 MiB, whatever is in them.
pub const ENTRIES: usize = 1_200_000;

/// Most nodes (files, directories, links), implied directories among them: 64 bytes each.
pub const NODES: usize = 1_250_000;

/// Most different extended attributes. Nodes whose attributes are all the same share them.
pub const XATTRS: usize = 500_000;

/// Most bytes in all names, link targets and extended attributes together: 50 bytes a node.
pub const STRINGS_LEN: usize = 64 << 20;

/// Most directory steps to follow in one TOC, over all its names: bounds the time that names which
/// repeat thousands of directories can take. Following a directory's next entry takes no step.
pub const PATH_STEPS: u64 = 64_000_000;

/// Longest name in a directory, in bytes (`NAME_MAX` of Linux).
pub const NAME_LEN: usize = 255;

/// Longest path and longest symbolic link target, in bytes (`PATH_MAX` of Linux without its NUL).
pub const PATH_LEN: usize = 4095;

/// Longest name of an extended attribute, in bytes (`XATTR_NAME_MAX` of Linux).
pub const XATTR_NAME_LEN: usize = 255;

/// Longest value of an extended attribute, in bytes (`XATTR_SIZE_MAX` of Linux).
pub const XATTR_VALUE_LEN: usize = 64 << 10;

/// Most bytes in the list of one node's attribute names (`XATTR_LIST_MAX` of Linux).
pub const XATTR_LIST_LEN: usize = 64 << 10;

/// Highest user and group number: the next one, all bits set, is "no id" to the kernel.
pub const ID: u32 = u32::MAX - 1;

/// Highest major device number (12 bits in the kernel's device numbers).
pub const DEVICE_MAJOR: u32 = (1 << 12) - 1;

/// Highest minor device number (20 bits in the kernel's device numbers).
pub const DEVICE_MINOR: u32 = (1 << 20) - 1;

/// Most uncompressed bytes for one compressed byte: DEFLATE codes at most 258 bytes in 2 bits.
pub const INFLATE_RATIO: u64 = 1032;

/// Longest content file, in bytes: half of what ext4 with 4 KiB blocks allows a file.
pub const CONTENT_LEN: u64 = 8 << 40;

/// Content of a file starts at a multiple of this many bytes: the page and block size, so that a file
/// can be mapped or described by its own extents (`docs/architecture.md`).
pub const CONTENT_ALIGN: u64 = 4096;

/// Most bytes that [`crate::decode::Inflater`] gives at once. Beyond it a member is streamed.
pub const INFLATE_LEN: u64 = 32 << 20;

/// Bytes that an [`crate::decode::Inflater`] has room for beyond what was asked: the member of a
/// file also holds padding and the tar headers of all directories, links and empty files behind it.
pub const INFLATE_TRAILER_LEN: u64 = 8 << 20;
