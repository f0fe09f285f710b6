//! The VMM with the run loop of [`own_run_loop::states`]. An argument is the folder of a snapshot to go on from.

use own_run_loop::states::StateLoops;
use own_run_loop::vmm;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    vmm::run::<StateLoops>(std::env::args_os().nth(1).map(Into::into))
}
