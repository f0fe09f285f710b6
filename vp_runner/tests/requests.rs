//! Registers, memory, MSRs and status by requests, and requests that are invalid. On real guests.

use test_machine::machine;

use machine::guest::*;
use machine::program::*;
use machine::*;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::debug_rpc::Unsupported;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::memory::MAX_TRANSFER;
use vmm_core_defs::memory::RamRange;
use vmm_core_defs::regs::Aarch64VpState;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::stop::DebugStopReason;

fn guest() -> Option<TestVm> {
    let code = counting_loop(Mode::Long);
    let vm = Setup::new(Mode::Long, &code).vps(2).build()?;
    vm.attach();
    Some(vm)
}

#[test]
fn every_register_group_written_through_rpc_reads_back_each_with_its_own_value() {
    let Some(vm) = guest() else {
        return;
    };
    let mut wanted = vm.regs(1);
    for (value, gp) in (0x1111_0000..).zip(&mut wanted.gp) {
        *gp = value;
    }
    wanted.rip = in_loop(Mode::Long, 1);
    wanted.rflags = 0x8d7;
    wanted.cr2 = 0xdead_0000;
    wanted.fs.base = 0x7000_1000;
    wanted.gs.base = 0x7000_2000;
    wanted.kernel_gs_base = 0xffff_8000_7000_3000;
    wanted.gdtr.limit = 39;
    wanted.idtr.base = 0x9000;
    wanted.debug.db = [0x10, 0x20, 0x30, 0x40];
    wanted.x87.fcw = 0x27f;
    for (value, xmm) in (1u128..).zip(&mut wanted.sse.xmm) {
        *xmm = value << 64 | 0xabc;
    }
    vm.try_set_regs(1, wanted.clone()).unwrap();
    assert_eq!(vm.regs(1), wanted);
    // The registers are the VP's and not a cache's: the VP executes on from them.
    vm.step(1);
    let stepped = vm.regs(1);
    assert_eq!(stepped.rip, in_loop(Mode::Long, 2));
    assert_eq!((stepped.gp, stepped.sse), (wanted.gp, wanted.sse));
    assert_eq!(stepped.debug.db, wanted.debug.db);
    assert_ne!(vm.regs(0).gp, wanted.gp, "the other VP's are its own");
}

#[test]
fn a_refused_register_write_changes_nothing_and_names_the_register() {
    let Some(vm) = guest() else {
        return;
    };
    let before = vm.regs(0);
    let mut bad = before.clone();
    bad.gp[5] = 77;
    bad.cr4 |= 1 << 63;
    let refused = vm.try_set_regs(0, bad);
    assert!(
        matches!(&refused, Err(DebugError::BadRegister { name, .. }) if name == "cr4"),
        "{refused:?}"
    );
    assert_eq!(vm.regs(0), before);
    let arm = Box::new(DebuggerVpState::Aarch64(Aarch64VpState::default()));
    assert!(matches!(
        vm.call(DebugRequest::SetVpState, (VpIndex::BSP, arm)),
        Err(DebugError::BadRegister { .. })
    ));
}

#[test]
fn msrs_are_read_and_written_by_number() {
    const FS_BASE: u32 = 0xc000_0100;
    let Some(vm) = guest() else {
        return;
    };
    let vp = VpIndex::new(1);
    assert_eq!(vm.regs(1).fs.base, 0);
    vm.call(DebugRequest::WriteMsr, (vp, FS_BASE, 0x1234_5000))
        .unwrap();
    assert_eq!(
        vm.call(DebugRequest::ReadMsr, (vp, FS_BASE)),
        Ok(0x1234_5000)
    );
    assert_eq!(vm.regs(1).fs.base, 0x1234_5000, "no cache hides it");
    let unknown = vm.call(DebugRequest::ReadMsr, (vp, 0x1234_5678));
    // With kvm.ignore_msrs KVM returns a value.
    assert!(matches!(
        unknown,
        Err(DebugError::BadRegister { .. }) | Ok(0)
    ));
}

#[test]
fn memory_is_read_and_written_by_both_kinds_of_address() {
    let Some(vm) = guest() else {
        return;
    };
    let data: Vec<u8> = (0..=255).collect();
    vm.write_gva(0, 0x6f80, &data).unwrap();
    let gpa = GuestAddress::Gpa(Gpa::new(0x6f80));
    assert_eq!(vm.call(DebugRequest::ReadMemory, (gpa, 256)), Ok(data));
    vm.call(DebugRequest::WriteMemory, (gpa, vec![9; 4]))
        .unwrap();
    assert_eq!(vm.read_gva(1, 0x6f7f, 6), Ok(vec![0, 9, 9, 9, 9, 4]));
    let translation = vm.call(DebugRequest::Translate, (VpIndex::BSP, Gva::new(0x6f80)));
    let translation = translation.unwrap();
    assert_eq!(translation.gpa, Gpa::new(0x6f80));
    assert_eq!(translation.page_size, Some(2 << 20));
}

#[test]
fn reads_stop_at_the_first_byte_that_cannot_be_read() {
    let Some(vm) = guest() else {
        return;
    };
    let end = 2 << 20;
    assert_eq!(vm.read_gva(0, end - 4, 16).unwrap().len(), 4);
    let Err(DebugError::NotMapped { vp, gva, why }) = vm.read_gva(0, end, 16) else {
        panic!("a page is there");
    };
    assert_eq!((vp, gva), (VpIndex::BSP, Gva::new(end)));
    let says = why.to_string();
    assert!(says.contains("of level 2 at 0x12008"), "{says}");
    let gpa = Gpa::new(end);
    assert_eq!(
        vm.call(DebugRequest::ReadMemory, (GuestAddress::Gpa(gpa), 1)),
        Err(DebugError::NoMemory { gpa })
    );
    // A write that would pass the end of memory writes nothing.
    assert!(vm.write_gva(0, end - 4, &[1; 8]).is_err());
    assert_eq!(vm.read_gva(0, end - 4, 4), Ok(vec![0; 4]));
}

#[test]
fn device_memory_is_accessed_in_natural_sizes() {
    let Some(vm) = guest() else {
        return;
    };
    let device = DEVICE.value();
    vm.write_gva(0, device, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    assert_eq!(vm.read_gva(0, device + 1, 7), Ok(vec![2, 3, 4, 5, 6, 7, 8]));
    let seen = vm.machine.wait_until("now", |_| true);
    let sizes: Vec<_> = seen.device_accesses.iter().map(|(_, size)| *size).collect();
    assert_eq!(sizes, [8, 1, 2, 4]);
    assert!(seen.device_accesses.iter().all(|(vp, _)| vp.is_none()));
    // Behind the register there is no device.
    assert_eq!(vm.read_gva(0, device + 4, 8), Ok(vec![5, 6, 7, 8]));
}

#[test]
fn physical_memory_is_readable_while_the_guest_runs_and_registers_are_not() {
    let Some(vm) = guest() else {
        return;
    };
    let pending = vm.resume();
    let gpa = GuestAddress::Gpa(Gpa::new(ENTRY));
    let code = counting_loop(Mode::Long);
    assert_eq!(
        vm.call(DebugRequest::ReadMemory, (gpa, code.len())),
        Ok(code)
    );
    let not_stopped = Some(DebugError::NotStopped);
    let vp = VpIndex::BSP;
    assert_eq!(vm.read_gva(0, ENTRY, 1).err(), not_stopped);
    assert_eq!(vm.call(DebugRequest::GetVpState, vp).err(), not_stopped);
    assert_eq!(
        vm.call(DebugRequest::ReadMsr, (vp, 0x10)).err(),
        not_stopped
    );
    assert_eq!(vm.call(DebugRequest::Reset, ()).err(), not_stopped);
    let again = vm.call(DebugRequest::Resume, every(VpAction::Run));
    assert_eq!(again.err(), not_stopped);
    assert_eq!(vm.status().vps[0].activity, VpActivity::Running);
    interrupt(&vm, pending);
}

#[test]
fn vps_that_do_not_exist_are_refused_by_every_request_that_names_one() {
    let Some(vm) = guest() else {
        return;
    };
    for index in [2, u32::MAX] {
        let vp = VpIndex::new(index);
        let none = Some(DebugError::NoSuchVp { vp, count: 2 });
        let regs = vm.regs(0);
        assert_eq!(vm.call(DebugRequest::GetVpState, vp).err(), none);
        assert_eq!(vm.try_set_regs(index, regs).err(), none);
        assert_eq!(vm.call(DebugRequest::ReadMsr, (vp, 0x10)).err(), none);
        assert_eq!(vm.call(DebugRequest::WriteMsr, (vp, 0x10, 0)).err(), none);
        assert_eq!(vm.read_gva(index, ENTRY, 1).err(), none);
        assert_eq!(vm.write_gva(index, ENTRY, &[0]).err(), none);
        let gva = Gva::new(ENTRY);
        assert_eq!(vm.call(DebugRequest::Translate, (vp, gva)).err(), none);
        assert_eq!(answer(vm.only(index, VpAction::Run)).err(), none);
    }
    assert_eq!(vm.regs(0).rip, ENTRY, "and nothing ran");
}

#[test]
fn lengths_that_are_too_long_or_wrap_are_refused() {
    let Some(vm) = guest() else {
        return;
    };
    for (address, len) in [
        (ENTRY, usize::MAX),
        (ENTRY, 1 << 63),
        (ENTRY, MAX_TRANSFER + 1),
        (u64::MAX, 2),
    ] {
        let wire = len as u64;
        let bad = Some(DebugError::BadLength { address, len: wire });
        assert_eq!(vm.read_gva(0, address, len).err(), bad);
        let gpa = GuestAddress::Gpa(Gpa::new(address));
        assert_eq!(vm.call(DebugRequest::ReadMemory, (gpa, len)).err(), bad);
    }
    assert_eq!(vm.read_gva(0, ENTRY, 0), Ok(vec![]));
}

#[test]
fn without_a_debugger_every_request_but_attach_is_refused() {
    let Some(vm) = guest() else {
        return;
    };
    assert_eq!(
        answer(vm.send_attach()).map(drop).err(),
        Some(DebugError::AlreadyAttached)
    );
    let nobody = VpAction::Stay;
    assert_eq!(
        vm.call(DebugRequest::Resume, every(nobody)).err(),
        Some(DebugError::NothingToRun)
    );
    vm.detach(DetachAction::Stay);
    let vp = VpIndex::BSP;
    let none = Some(DebugError::NotAttached);
    let insert = vec![BreakpointChange::Insert(execute_at(ENTRY))];
    assert_eq!(
        vm.call(DebugRequest::Detach, DetachAction::Stay).err(),
        none
    );
    assert_eq!(
        vm.call(DebugRequest::Resume, every(VpAction::Run)).err(),
        none
    );
    assert_eq!(vm.call(DebugRequest::Break, ()).err(), none);
    assert_eq!(vm.call(DebugRequest::SetDebugState, insert).err(), none);
    assert_eq!(vm.call(DebugRequest::GetVpState, vp).err(), none);
    assert_eq!(vm.call(DebugRequest::ReadMsr, (vp, 0x10)).err(), none);
    assert_eq!(vm.read_gva(0, ENTRY, 1).err(), none);
    assert_eq!(vm.call(DebugRequest::Status, ()).err(), none);
    assert_eq!(vm.call(DebugRequest::Reset, ()).err(), none);
    let gpa = GuestAddress::Gpa(Gpa::new(0));
    assert_eq!(vm.call(DebugRequest::ReadMemory, (gpa, 1)).err(), none);
    assert_eq!(
        vm.call(DebugRequest::WriteMemory, (gpa, vec![0])).err(),
        none
    );
    vm.attach();
}

#[test]
fn an_nmi_from_the_debugger_reaches_the_guest_once_it_runs() {
    // mov eax, 1; stosd; iret
    let handler = &[0xb8, 1, 0, 0, 0, 0xab, 0x48, 0xcf];
    let program = Program::new("NMI", Mode::Long, &[0x90, 0x90]).handler(2, handler);
    let noted = |vm: &TestVm| vm.machine.raw_memory()[usize::try_from(LOG).unwrap()];
    for asked in [false, true] {
        let Some(vm) = program.build() else {
            return;
        };
        if asked {
            vm.call(DebugRequest::Nmi, VpIndex::BSP).unwrap();
        }
        assert_eq!(noted(&vm), 0, "not before it runs");
        assert_eq!(
            stop(vm.resume()),
            DebugStopReason::PowerOff {
                vp: Some(VpIndex::BSP)
            }
        );
        assert_eq!(noted(&vm), u8::from(asked));
    }
}

#[test]
fn an_nmi_for_a_vp_that_was_never_started_is_refused() {
    let code = counting_loop(Mode::Long);
    let setup = Setup::new(Mode::Long, &code).vps(2).others_wait();
    let Some(vm) = setup.build() else {
        return;
    };
    vm.attach();
    let refused = vm.call(DebugRequest::Nmi, VpIndex::new(1));
    assert!(
        matches!(&refused, Err(DebugError::Unsupported(Unsupported::NotStarted { vp })) if *vp == VpIndex::new(1)),
        "{refused:?}"
    );
    let missing = vm.call(DebugRequest::Nmi, VpIndex::new(2));
    assert!(matches!(missing, Err(DebugError::NoSuchVp { .. })));
}

#[test]
fn what_the_page_tables_map_is_listed_and_agrees_with_each_walk() {
    let Some(vm) = guest() else {
        return;
    };
    let from = (VpIndex::BSP, Gva::new(0));
    let listed = vm.call(DebugRequest::MappedPages, from).unwrap();
    assert_eq!(listed.next, None);
    let starts: Vec<_> = listed.pages.iter().map(|page| page.gva.value()).collect();
    assert_eq!(starts, [0, DEVICE.value() & !0x1f_ffff]);
    for page in listed.pages {
        let walk = vm.call(DebugRequest::Translate, (VpIndex::BSP, page.gva));
        let walk = walk.unwrap();
        let entry = walk.entries.last().map(|entry| entry.value);
        assert_eq!((walk.gpa, walk.page_size), (page.gpa, Some(page.size)));
        assert_eq!((walk.writable, walk.user), (page.writable, page.user));
        assert_eq!(entry, Some(page.entry));
    }
}

#[test]
fn where_ram_is_can_be_asked_while_the_guest_runs() {
    let Some(vm) = guest() else {
        return;
    };
    let pending = vm.resume();
    let ram = RamRange {
        gpa: Gpa::new(0),
        len: vm.machine.raw_memory().len() as u64,
    };
    assert_eq!(vm.call(DebugRequest::RamRanges, ()), Ok(vec![ram]));
    vm.call(DebugRequest::Break, ()).unwrap();
    assert_eq!(stop(pending), DebugStopReason::Break);
}

/// The error names the VMM's code, and not the hypervisor.
#[test]
fn a_reset_that_fails_is_an_error_of_the_vmms_code() {
    if test_machine::own_loops::vmm_resets() {
        return;
    }
    let Some(vm) = Setup::new(Mode::Long, &[0x90]).reset_fails().build() else {
        return;
    };
    vm.attach();
    let Err(DebugError::MachineFailed { call, how }) = vm.call(DebugRequest::Reset, ()) else {
        panic!("the reset fails");
    };
    assert_eq!(call, MachineCall::Reset);
    let text = "cannot reset the test's machine: the test wants it so".to_owned();
    assert_eq!(how, MachineFailure::Returned(text));
}
