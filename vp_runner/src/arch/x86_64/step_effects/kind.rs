//! Classifies instructions by the effect of a step over them.

use iced_x86::Code;
use iced_x86::Instruction;
use iced_x86::Mnemonic;
use iced_x86::OpKind;
use iced_x86::Register;
use vmm_core_defs::regs::x86_64::bits::rflags;

/// The kind of an instruction, as far as it affects stepping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A step needs no special treatment.
    Ordinary,
    /// `pushf`, `pushfd`, `pushfq`.
    PushFlags {
        /// The size of the image: 2, 4 or 8.
        bytes: u8,
    },
    /// `popf`, `popfd`, `popfq`.
    PopFlags,
    /// `iret`, `iretd`, `iretq`. It may switch tasks.
    InterruptReturn {
        /// The size of each slot of the frame: 2, 4 or 8.
        bytes: u8,
    },
    /// `int n`, `int3`, `int1`, and `into` with OF set. These clear TF, so the step continues through the handler unless there is an execution breakpoint at
    /// the entry of the handler.
    SoftwareInterrupt {
        /// The vector.
        vector: u8,
    },
    /// `syscall`. If IA32_FMASK has TF, the step continues unless there is an execution breakpoint at the entry.
    SystemCall,
    /// `sysenter`.
    SystemEnter,
    /// `sysret`. If R11 has no TF, the step continues unless there is an execution breakpoint at the target.
    SystemReturn {
        /// The size of the RIP that the instruction takes from RCX: 4 or 8.
        bytes: u8,
    },
    /// `hlt`: the step ends with the halt.
    Halt,
    /// `mov ss`, `pop ss`: interrupts and the step's trap are blocked for one instruction.
    StackSegment,
    /// `sti`: interrupts are blocked for one instruction.
    EnableInterrupts,
    /// A string instruction with a `rep` prefix.
    RepeatedString,
    /// Instructions that KVM emulates after an exit, and for which some KVMs lose the step (`cpuid`, `wrmsr`, `in`, `out` and similar). RIP shows whether they
    /// are done.
    Intercepted,
    /// A far call, jump or return. It may switch tasks.
    FarTransfer,
    /// `ltr`: changes TR without a task switch.
    LoadTaskRegister,
}

/// Where RIP goes, as far as the instruction alone shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// To the next instruction.
    Sequential,
    /// To another address in the same code segment.
    Near,
    /// To another address, with the address of the next instruction on the stack.
    Call,
    /// Possibly to another code segment.
    Far,
}

/// Classifies an instruction. `None` for `instruction` means that the fetch or the decoding faults.
pub(super) fn of(rflags: u64, instruction: Option<&Instruction>) -> Kind {
    let Some(instruction) = instruction else {
        return Kind::Ordinary;
    };
    match instruction.code() {
        Code::Pushfw => Kind::PushFlags { bytes: 2 },
        Code::Pushfd => Kind::PushFlags { bytes: 4 },
        Code::Pushfq => Kind::PushFlags { bytes: 8 },
        Code::Popfw | Code::Popfd | Code::Popfq => Kind::PopFlags,
        Code::Iretw => Kind::InterruptReturn { bytes: 2 },
        Code::Iretd => Kind::InterruptReturn { bytes: 4 },
        Code::Iretq => Kind::InterruptReturn { bytes: 8 },
        Code::Int_imm8 => Kind::SoftwareInterrupt {
            vector: instruction.immediate8(),
        },
        Code::Sysretd => Kind::SystemReturn { bytes: 4 },
        Code::Sysretq => Kind::SystemReturn { bytes: 8 },
        Code::Int3 => Kind::SoftwareInterrupt { vector: 3 },
        Code::Int1 => Kind::SoftwareInterrupt { vector: 1 },
        Code::Into if rflags & rflags::OF != 0 => Kind::SoftwareInterrupt { vector: 4 },
        Code::Popw_SS | Code::Popd_SS => Kind::StackSegment,
        _ if is_repeated(instruction) => Kind::RepeatedString,
        _ if is_far(instruction) => Kind::FarTransfer,
        _ => of_mnemonic(instruction),
    }
}

fn of_mnemonic(instruction: &Instruction) -> Kind {
    match instruction.mnemonic() {
        Mnemonic::Mov if instruction.op0_register() == Register::SS => Kind::StackSegment,
        Mnemonic::Sti => Kind::EnableInterrupts,
        Mnemonic::Hlt => Kind::Halt,
        Mnemonic::Syscall => Kind::SystemCall,
        Mnemonic::Sysenter => Kind::SystemEnter,
        Mnemonic::Ltr => Kind::LoadTaskRegister,
        Mnemonic::Cpuid
        | Mnemonic::Wrmsr
        | Mnemonic::Rdmsr
        | Mnemonic::Rdpmc
        | Mnemonic::Rdtsc
        | Mnemonic::Rdtscp
        | Mnemonic::Xsetbv
        | Mnemonic::Xgetbv
        | Mnemonic::Invd
        | Mnemonic::Wbinvd
        | Mnemonic::Invlpg
        | Mnemonic::Monitor
        | Mnemonic::Mwait
        | Mnemonic::Pause
        | Mnemonic::Vmcall
        | Mnemonic::Vmmcall
        | Mnemonic::In
        | Mnemonic::Out
        | Mnemonic::Insb
        | Mnemonic::Insw
        | Mnemonic::Insd
        | Mnemonic::Outsb
        | Mnemonic::Outsw
        | Mnemonic::Outsd => Kind::Intercepted,
        _ => Kind::Ordinary,
    }
}

pub(super) fn flow(instruction: &Instruction) -> Flow {
    let near = matches!(
        instruction.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    );
    match instruction.mnemonic() {
        Mnemonic::Call => Flow::Call,
        Mnemonic::Iret
        | Mnemonic::Iretd
        | Mnemonic::Iretq
        | Mnemonic::Syscall
        | Mnemonic::Sysenter
        | Mnemonic::Sysret
        | Mnemonic::Sysretq
        | Mnemonic::Sysexit
        | Mnemonic::Sysexitq => Flow::Far,
        _ if is_far(instruction) => Flow::Far,
        Mnemonic::Jmp | Mnemonic::Ret => Flow::Near,
        _ if near => Flow::Near,
        _ => Flow::Sequential,
    }
}

fn is_far(instruction: &Instruction) -> bool {
    let far_operand = matches!(
        instruction.op0_kind(),
        OpKind::FarBranch16 | OpKind::FarBranch32
    );
    let far_memory = matches!(
        instruction.code(),
        Code::Call_m1616
            | Code::Call_m1632
            | Code::Call_m1664
            | Code::Jmp_m1616
            | Code::Jmp_m1632
            | Code::Jmp_m1664
    );
    far_operand || far_memory || instruction.mnemonic() == Mnemonic::Retf
}

fn is_repeated(instruction: &Instruction) -> bool {
    let is_string = |operand| {
        matches!(
            instruction.op_kind(operand),
            OpKind::MemorySegSI
                | OpKind::MemorySegESI
                | OpKind::MemorySegRSI
                | OpKind::MemoryESDI
                | OpKind::MemoryESEDI
                | OpKind::MemoryESRDI
        )
    };
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    repeated && (0..instruction.op_count()).any(is_string)
}
