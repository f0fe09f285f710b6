use super::*;
use std::fs;

/// This test program: dynamically linked, with glibc's linker.
fn own() -> Vec<u8> {
    fs::read(std::env::current_exe().expect("a path")).expect("readable")
}

#[track_caller]
fn refused(bytes: &[u8]) -> String {
    let error = check_contents(Path::new("/x/vmm"), bytes).expect_err("it is refused");
    let text = error.to_string();
    assert!(text.contains("/x/vmm"), "{text}");
    text
}

#[test]
fn a_dynamically_linked_program_is_accepted() {
    check_contents(Path::new("vmm"), own().as_slice()).expect("accepted");
    check(&std::env::current_exe().expect("a path"), &[]).expect("accepted");
}

#[test]
fn what_cannot_be_preloaded_into_is_refused_with_what_to_do() {
    let text = refused(b"#!/bin/sh\nexec qemu-system-x86_64\n");
    assert!(text.contains("script") && text.contains("sh -x"), "{text}");
    for bytes in [&b""[..], b"x", b"MZ..", b"\x7fELF", &own()[..70]] {
        refused(bytes);
    }
    let text = refused(demo_guest::ELF);
    assert!(text.contains("statically linked"), "{text}");
    // ELFCLASS32, and the machine number of AArch64.
    for (place, value) in [(4, 1), (18, 183)] {
        let mut bytes = own();
        bytes[place] = value;
        let text = refused(&bytes);
        assert!(text.contains("another kind of machine"), "{text}");
    }
}

#[test]
fn a_program_for_another_c_library_is_refused() {
    let mut bytes = own();
    let place = bytes
        .windows(GLIBC_LINKER.len())
        .position(|window| window == GLIBC_LINKER)
        .expect("it names its linker");
    bytes[place..place + GLIBC_LINKER.len()].copy_from_slice(b"ld-musl-x86_64.so.12");
    let text = refused(&bytes);
    assert!(text.contains("ld-musl-x86_64.so.12"), "{text}");
}

#[test]
fn a_program_is_found_as_a_shell_finds_it() {
    let shell = find(OsStr::new("sh")).expect("every system has it");
    assert!(shell.is_absolute() && shell.ends_with("sh"), "{shell:?}");
    let path = find(shell.as_os_str()).expect("by its path");
    assert_eq!(path, shell);
    for missing in ["no-such-vmm", "/no/such/vmm", ""] {
        let error = find(OsStr::new(missing)).expect_err(missing);
        assert!(matches!(error, VmmFileError::NotFound(_)), "{error}");
    }
}

#[test]
fn a_folder_is_named_as_one() {
    let error = find(OsStr::new("/usr/")).expect_err("refused");
    assert!(matches!(error, VmmFileError::Folder(_)), "{error}");
}

#[test]
fn the_dynamic_linker_is_taken_with_the_program_that_it_loads() {
    let linker = Path::new("/lib64").join(OsStr::from_bytes(GLIBC_LINKER));
    let own = std::env::current_exe().expect("a path");
    let folder = tempfile::tempdir().expect("a folder");
    let guest = folder.path().join("guest");
    fs::write(&guest, demo_guest::ELF).expect("writable");
    let check = |arguments: &[&OsStr]| {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        check(&linker, &arguments).map(drop)
    };
    let path = OsStr::new("--library-path");
    let cache = OsStr::new("--inhibit-cache");
    check(&[own.as_os_str()]).expect("accepted");
    let more = [cache, path, guest.as_os_str(), own.as_os_str()];
    check(&more).expect("a value is no program");
    for nothing in [&[][..], &[cache], &[path, own.as_os_str()]] {
        let error = check(nothing).expect_err("refused").to_string();
        assert!(error.contains("no program follows"), "{error}");
    }
    let error = check(&[guest.as_os_str()]).expect_err("refused");
    assert!(matches!(error, VmmFileError::Static(_)), "{error}");
}
