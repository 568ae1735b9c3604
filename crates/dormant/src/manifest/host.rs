//! The machine a stage ran on.

use std::fs;

use serde::{Deserialize, Serialize};

/// The machine a stage ran on. No name: manifests are shared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Host {
    /// Model of the CPU, or its architecture.
    pub cpu: String,
    /// Instruction sets that the kernels can use.
    pub features: Vec<String>,
    /// Instruction set of the kernels.
    #[serde(default)]
    pub kernels: String,
    /// Worker threads.
    pub threads: usize,
    /// Operating system.
    pub os: String,
    /// Most memory that this process has held so far, in bytes, where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

impl Host {
    /// This machine, and the threads of this process.
    pub fn this() -> Self {
        Self {
            cpu: cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            features: features().into_iter().map(str::to_owned).collect(),
            kernels: dormant_tensor::isa::Isa::current().name().to_owned(),
            threads: rayon::current_num_threads(),
            os: std::env::consts::OS.to_owned(),
            peak_memory: peak_memory(),
        }
    }
}

fn cpu_name() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
    ]
    .into_iter()
    .filter_map(|(name, present)| present.then_some(name))
    .collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    if cfg!(target_arch = "aarch64") { vec!["neon"] } else { Vec::new() }
}
