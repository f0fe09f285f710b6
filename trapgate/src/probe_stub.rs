//! stub
use vmm_core_defs::debug_rpc::Capability;
/// r
pub struct Report;
/// e
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ProbeError;
/// run
pub fn run() -> Result<Report, ProbeError> {
    Ok(Report)
}
impl Report {
    /// c
    pub fn capabilities(&self) -> Vec<Capability> {
        Vec::new()
    }
}
