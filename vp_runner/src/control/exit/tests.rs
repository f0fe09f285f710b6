use super::*;
use crate::arch::x86_64::dr7::Dr6;
use crate::machine::MachineError;
use kvm_ioctls::VcpuFd;
use std::sync::Mutex;

/// A machine that logs its calls. Port 1 resets, port 2 powers off, port 3 panics, and 0x1000 is a device.
#[derive(Default)]
struct Devices(Mutex<Vec<String>>);

impl Devices {
    fn log(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl Machine for Devices {
    fn pio_read(&self, vp: VpIndex, port: u16, data: &mut [u8]) {
        self.log(format!("in {vp} {port:#x} {}", data.len()));
        data.fill(0x5a);
    }

    fn pio_write(&self, vp: VpIndex, port: u16, data: &[u8]) -> DeviceOutcome {
        self.log(format!("out {vp} {port:#x} {data:x?}"));
        match port {
            1 => DeviceOutcome::Reset,
            2 => DeviceOutcome::PowerOff,
            3 => DeviceOutcome::Panicked,
            _ => DeviceOutcome::Done,
        }
    }

    fn mmio_read(&self, vp: Option<VpIndex>, gpa: Gpa, data: &mut [u8]) -> MmioOutcome {
        self.log(format!("read {vp:?} {gpa} {}", data.len()));
        match gpa.value() {
            0x1000 => {
                data.fill(1);
                MmioOutcome::Handled
            }
            _ => MmioOutcome::Unclaimed,
        }
    }

    fn mmio_write(
        &self,
        _vp: Option<VpIndex>,
        _gpa: Gpa,
        data: &[u8],
    ) -> (MmioOutcome, DeviceOutcome) {
        match data[0] {
            0 => (MmioOutcome::Handled, DeviceOutcome::Reset),
            _ => (MmioOutcome::Unclaimed, DeviceOutcome::Done),
        }
    }

    fn init_vp(&self, _vp: VpIndex, _vcpu: &VcpuFd) -> Result<(), MachineError> {
        Ok(())
    }

    fn reset(&self) -> Result<(), MachineError> {
        Ok(())
    }
}

const VP: VpIndex = VpIndex::new(3);

#[test]
fn a_string_instruction_reaches_the_device_element_by_element() {
    let devices = Devices::default();
    let data = &[1, 2, 3, 4, 5, 6];
    let exit = VpExit::PioWrite {
        port: 0x80,
        size: 2,
        data,
    };
    assert_eq!(handle(exit, VP, &devices), Next::Enter);
    assert_eq!(
        *devices.0.lock().unwrap(),
        [
            "out 3 0x80 [1, 2]",
            "out 3 0x80 [3, 4]",
            "out 3 0x80 [5, 6]"
        ]
    );
}

#[test]
fn reads_are_filled_in_and_unclaimed_memory_reads_ones() {
    let devices = Devices::default();
    let mut data = [0; 2];
    let exit = VpExit::PioRead {
        port: 0x60,
        size: 1,
        data: &mut data,
    };
    assert_eq!(handle(exit, VP, &devices), Next::Enter);
    assert_eq!(data, [0x5a; 2]);
    for (gpa, seen) in [(0x1000, [1; 4]), (0x2000, [0xff; 4])] {
        let mut data = [0; 4];
        let exit = VpExit::MmioRead {
            gpa: Gpa::new(gpa),
            data: &mut data,
        };
        assert_eq!(handle(exit, VP, &devices), Next::Enter);
        assert_eq!(data, seen);
    }
}

#[test]
fn what_one_vp_asked_for_is_met_by_another_vps_wish() {
    let [first, second] = [0, 1].map(|vp| Some(VpIndex::new(vp)));
    let reset = |vp| GuestEvent::Reset { vp };
    let off = |vp| GuestEvent::PowerOff { vp };
    let panic = |vp| GuestEvent::Panicked {
        vp: VpIndex::new(vp),
    };
    assert!(reset(first).is_covered_by(reset(second)) && off(None).is_covered_by(off(first)));
    assert!(!reset(first).is_covered_by(off(first)) && !off(first).is_covered_by(reset(first)));
    assert!(panic(1).is_covered_by(panic(1)) && !panic(0).is_covered_by(panic(1)));
}

#[test]
fn each_exit_leads_where_it_should() {
    let debug = DebugExit {
        vector: 1,
        pc: 0,
        dr6: Dr6(1),
    };
    let failed = CrashCause::Internal { suberror: 1 };
    let write = |port| VpExit::PioWrite {
        port,
        size: 1,
        data: &[7],
    };
    let store = |data| VpExit::MmioWrite {
        gpa: Gpa::new(0),
        data,
    };
    let table = [
        (write(0), Next::Enter),
        (write(1), Next::Stop(GuestEvent::Reset { vp: Some(VP) })),
        (write(2), Next::Stop(GuestEvent::PowerOff { vp: Some(VP) })),
        (write(3), Next::Stop(GuestEvent::Panicked { vp: VP })),
        (store(&[1]), Next::Enter),
        (store(&[0]), Next::Stop(GuestEvent::Reset { vp: Some(VP) })),
        (VpExit::Debug(debug), Next::Debug(debug)),
        (VpExit::Halted, Next::Halt),
        (VpExit::Interrupted, Next::Enter),
        (VpExit::Nothing, Next::Enter),
        (
            VpExit::Shutdown(FaultRegisters::Kept),
            Next::Stop(GuestEvent::TripleFault {
                vp: VP,
                registers: FaultRegisters::Kept,
            }),
        ),
        (
            VpExit::SystemReset,
            Next::Stop(GuestEvent::Reset { vp: Some(VP) }),
        ),
        (
            VpExit::SystemPowerOff,
            Next::Stop(GuestEvent::PowerOff { vp: Some(VP) }),
        ),
        (
            VpExit::SystemCrash,
            Next::Stop(GuestEvent::Panicked { vp: VP }),
        ),
        (
            VpExit::Failed(failed),
            Next::Stop(GuestEvent::Crashed {
                vp: VP,
                cause: failed,
            }),
        ),
    ];
    for (exit, next) in table {
        let name = format!("{exit:?}");
        assert_eq!(handle(exit, VP, &Devices::default()), next, "{name}");
    }
}

#[test]
fn only_io_exits_hold_half_an_instruction_back() {
    let mut data = [0];
    assert!(
        VpExit::MmioRead {
            gpa: Gpa::new(0),
            data: &mut data
        }
        .is_pending()
    );
    assert!(
        VpExit::PioWrite {
            port: 0,
            size: 1,
            data: &[0]
        }
        .is_pending()
    );
    assert!(!VpExit::Interrupted.is_pending());
    assert!(!VpExit::Shutdown(FaultRegisters::Kept).is_pending());
}
