//! Files of other people's data.

pub(crate) mod jsonl;

/// Files larger than this are not read.
const MAX_FILE_BYTES: u64 = 4 << 30;
/// Rows larger than this are not read.
const MAX_ROW_BYTES: u64 = 16 << 20;
