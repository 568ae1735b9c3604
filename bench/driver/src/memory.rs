//! Peak memory of the process, as Linux counts it; 0 where it does not.

use std::path::Path;

use crate::Result;

/// Forgets the peak so far.
pub(crate) fn reset_peak() -> Result<()> {
    let path = Path::new("/proc/self/clear_refs");
    if path.exists() { Ok(std::fs::write(path, "5")?) } else { Ok(()) }
}

/// Most bytes of memory held since [`reset_peak`].
pub(crate) fn peak() -> Result<u64> {
    let path = Path::new("/proc/self/status");
    let status = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()).unwrap_or("0");
    Ok(kilobytes.parse::<u64>()? * 1024)
}
