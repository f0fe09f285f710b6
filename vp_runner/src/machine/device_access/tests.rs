use super::*;
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
    let access = DeviceAccess::PioWrite {
        port: 0x80,
        size: 2,
        data,
    };
    assert_eq!(access.serve(VP, &devices), DeviceOutcome::Done);
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
    let access = DeviceAccess::PioRead {
        port: 0x60,
        size: 1,
        data: &mut data,
    };
    assert_eq!(access.serve(VP, &devices), DeviceOutcome::Done);
    assert_eq!(data, [0x5a; 2]);
    for (gpa, seen) in [(0x1000, [1; 4]), (0x2000, [0xff; 4])] {
        let mut data = [0; 4];
        let access = DeviceAccess::MmioRead {
            gpa: Gpa::new(gpa),
            data: &mut data,
        };
        assert_eq!(access.serve(VP, &devices), DeviceOutcome::Done);
        assert_eq!(data, seen);
    }
}

#[test]
fn what_a_write_asks_for_is_returned() {
    let write = |port| DeviceAccess::PioWrite {
        port,
        size: 1,
        data: &[7],
    };
    let store = |data| DeviceAccess::MmioWrite {
        gpa: Gpa::new(0),
        data,
    };
    for (access, outcome) in [
        (write(0), DeviceOutcome::Done),
        (write(1), DeviceOutcome::Reset),
        (write(2), DeviceOutcome::PowerOff),
        (write(3), DeviceOutcome::Panicked),
        (store(&[1]), DeviceOutcome::Done),
        (store(&[0]), DeviceOutcome::Reset),
    ] {
        let name = format!("{access:?}");
        assert_eq!(access.serve(VP, &Devices::default()), outcome, "{name}");
    }
}
